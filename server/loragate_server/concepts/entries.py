"""A concept that comes from outside, checked before a library holds it."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationError

from loragate_server.concepts.concept import MAX_PICTURES, Concept
from loragate_server.concepts.manifest import ConceptEntry
from loragate_server.errors import ErrorReason, NoDecisionError


def require_valid(concept: Concept, pictures: int) -> None:
    """Whether a library could hold a concept with so many pictures.

    Raises:
        NoDecisionError: CONCEPT_PICTURES_INVALID or REQUEST_INVALID.
    """
    names = tuple(f"{number}.png" for number in range(pictures))
    require_counts(concept, [b""] * pictures)
    entry_of(concept, names)


def entry_of(concept: Concept, names: tuple[str, ...]) -> ConceptEntry:
    """The entry of a concept whose pictures have these names in the library's folder.

    Raises:
        NoDecisionError: REQUEST_INVALID.
    """
    try:
        return ConceptEntry(
            id=concept.concept_id,
            name=concept.name,
            category=concept.category,
            severity=concept.severity,
            role=concept.role,
            prompts=concept.prompts,
            pictures=None if concept.picture_hands else names,
            hands=_by_hand(names, concept.picture_hands) if concept.picture_hands else None,
            names=dict(concept.names) or None,
        )
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in fault["loc"])
        raise NoDecisionError(
            ErrorReason.REQUEST_INVALID,
            f"The concept's {field} is not valid: {fault['msg']}.",
            remedy="Correct the field and send the concept again.",
            metadata={"field": field},
        ) from error


def require_counts(concept: Concept, pictures: Sequence[bytes]) -> None:
    """Whether there are as many pictures as a concept may have, and as many as have hands.

    Raises:
        NoDecisionError: CONCEPT_PICTURES_INVALID.
    """
    if not 1 <= len(pictures) <= MAX_PICTURES:
        raise NoDecisionError(
            ErrorReason.CONCEPT_PICTURES_INVALID,
            f"The concept has {len(pictures)} pictures.",
            remedy=f"Send 1 to {MAX_PICTURES} pictures.",
        )
    if concept.picture_hands and len(concept.picture_hands) != len(pictures):
        raise NoDecisionError(
            ErrorReason.CONCEPT_PICTURES_INVALID,
            f"{len(concept.picture_hands)} hands are named for {len(pictures)} pictures.",
            remedy="Name the hand of every picture, in their order, or none.",
        )


def _by_hand(names: Sequence[str], hands: Sequence[str]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for name, hand in zip(names, hands, strict=True):
        found[hand] = (*found.get(hand, ()), name)
    return found
