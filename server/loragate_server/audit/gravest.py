"""Per concept, the gravest of what several uses of the same adapters showed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from loragate_server.audit.evidence import ConceptEvidence


def gravest_concepts(
    by_use: Sequence[Sequence[ConceptEvidence]],
) -> tuple[ConceptEvidence, ...]:
    """One entry per concept: of the use that is gravest, with the gravest of other measures.

    Gravest is the use of the lowest family p-value; without a calibration, of the highest score.

    Args:
        by_use: what each use showed, in the order of the uses, all about the same concepts in the
            same order; empty for a use that could not be measured.
    """
    measured = [(number, concepts) for number, concepts in enumerate(by_use) if concepts]
    if not measured:
        return ()
    if len(measured) == 1:  # nothing to compare, as of most questions
        [(use, concepts)] = measured
        return tuple(one if one.use == use else replace(one, use=use) for one in concepts)
    columns = zip(*(concepts for _, concepts in measured), strict=True)
    numbers = [number for number, _ in measured]
    return tuple(_gravest(numbers, column) for column in columns)


def _gravest(numbers: Sequence[int], column: Sequence[ConceptEvidence]) -> ConceptEvidence:
    # A score that is not a number is graver than any that is: the policy then cannot vouch.
    top = max(range(len(column)), key=lambda i: (_grave(column[i]), _rank(column[i].score)))
    aimed = [one.degree_p_value for one in column if one.degree_p_value is not None]
    return replace(
        column[top],
        use=numbers[top],
        score=max((one.score for one in column), key=_rank),
        p_value=min(one.p_value for one in column),
        degree_p_value=min(aimed) if aimed else None,
        degree=max((one.degree for one in column), key=_rank),
    )


def _grave(one: ConceptEvidence) -> float:
    if math.isnan(one.score):
        return math.inf
    return 0.0 if one.family_p_value is None else -one.family_p_value


def _rank(value: float) -> float:
    return math.inf if math.isnan(value) else value
