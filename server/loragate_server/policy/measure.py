"""Which measure of a concept decided, and how far it is from the limit of the policy."""

from __future__ import annotations

from collections.abc import Iterator

from loragate_server.audit.evidence import ConceptEvidence
from loragate_server.policy.decision import Measured, MeasureKind
from loragate_server.policy.policy import Thresholds


def at_block(concept: ConceptEvidence, library_p: float, limits: Thresholds) -> Measured | None:
    """What reaches the block level; None where nothing does.

    Args:
        concept: what was measured.
        library_p: its p-value over all concepts of the library.
        limits: of the rule that speaks about it.
    """
    return _first(_level(concept, library_p, limits.block_p_value, limits.block_score))


def at_review(concept: ConceptEvidence, library_p: float, limits: Thresholds) -> Measured | None:
    """What reaches the review level, the concept's own p-value last; None where nothing does.

    Args:
        concept: what was measured.
        library_p: its p-value over all concepts of the library.
        limits: of the rule that speaks about it.
    """
    return _first(_review(concept, library_p, limits))


def nearest(concept: ConceptEvidence, library_p: float, limits: Thresholds) -> Measured | None:
    """Of a concept that is let through, the limit that it would reach first.

    That is the degree where only the degree lets it through, else the mildest limit that there
    is; None where the policy has no limit for it.

    Args:
        concept: what was measured.
        library_p: its p-value over all concepts of the library.
        limits: of the rule that speaks about it.
    """
    block = _level(concept, library_p, limits.block_p_value, limits.block_score)
    found = [*_review(concept, library_p, limits), *block]
    if any(one.reached for one in found):
        return Measured(MeasureKind.DEGREE, concept.degree, limits.min_degree)
    return found[0] if found else None


def _review(concept: ConceptEvidence, library_p: float, limits: Thresholds) -> Iterator[Measured]:
    yield from _level(concept, library_p, limits.review_p_value, limits.review_score)
    if limits.review_own_p_value is not None:
        yield Measured(MeasureKind.OWN_P_VALUE, concept.p_value, limits.review_own_p_value)


def _level(
    concept: ConceptEvidence, library_p: float, p_value: float | None, score: float | None
) -> Iterator[Measured]:
    if p_value is not None:
        yield Measured(MeasureKind.LIBRARY_P_VALUE, library_p, p_value)
    if score is not None:
        yield Measured(MeasureKind.SCORE, concept.score, score)


def _first(measures: Iterator[Measured]) -> Measured | None:
    return next((one for one in measures if one.reached), None)
