"""A neutral bank that the base model draws itself, of words for ordinary things."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loragate_server.concepts.concept import Concept
from loragate_server.concepts.library import ConceptLibrary
from loragate_server.progress import Report, silent
from loragate_server.trials.drawing import Artist
from loragate_server.trials.errors import TrialError
from loragate_server.trials.nouns import slug, without_forbidden

CATEGORY = "neutral"
MANNERS = ("a photo of {}", "a drawing of {}")
"""Prompts in turn, so that what the pictures of a thing have in common is the thing."""


@dataclass(frozen=True)
class BankPlan:
    """What the bank shall be.

    Attributes:
        concepts: how many neutral concepts the library has in the end.
        pictures: of each.
        manners: prompts with {} for the noun; each one is a hand.
    """

    concepts: int = 64
    pictures: int = 4
    manners: tuple[str, ...] = MANNERS

    def __post_init__(self) -> None:
        if wrong := [one for one in self.manners if one.count("{}") != 1]:
            raise TrialError(f"the prompt {wrong[0]!r} has to hold {{}} once, for the noun")


def make_bank(
    library: ConceptLibrary,
    artist: Artist,
    nouns: Sequence[str],
    plan: BankPlan,
    report: Report = silent,
) -> ConceptLibrary:
    """Adds neutral concepts until there are as many as planned; all at once, in the end.

    Pictures that were drawn before are not drawn again.

    Args:
        library: may lack forbidden concepts still.
        artist: draws.
        nouns: words, the first ones that are free are taken.
        plan: how many, and how.
        report: told "drawing" with the share that is done.

    Raises:
        TrialError: there are too few nouns.
        NoDecisionError: as `ConceptLibrary.add`.
    """
    wanted = plan.concepts - len(library.neutral)
    chosen = free_nouns(library, nouns)[: max(0, wanted)]
    if len(chosen) < wanted:
        raise TrialError(
            f"{wanted} more nouns are needed and {len(chosen)} are free; give more by --nouns"
        )
    additions = []
    for number, noun in enumerate(chosen):
        concept, pictures = _drawn(noun, artist, plan, report, number / max(1, len(chosen)))
        additions.append((concept, pictures))
    report("drawing", 1.0)
    return library.add_all(additions) if additions else library


def free_nouns(library: ConceptLibrary, nouns: Sequence[str]) -> tuple[str, ...]:
    """Those that no concept of the library is named after, the first of those with one id."""
    taken = {one.concept_id for one in library.concepts}
    taken |= {slug(one.name) for one in library.concepts}
    free: dict[str, str] = {}
    for noun in without_forbidden(nouns, library.forbidden):
        if slug(noun) not in taken:
            free.setdefault(slug(noun), noun)
    return tuple(free.values())


def _drawn(
    noun: str, artist: Artist, plan: BankPlan, report: Report, done: float
) -> tuple[Concept, list[bytes]]:
    pictures, hands = [], []
    for index in range(plan.pictures):
        report("drawing", done)
        manner = plan.manners[index % len(plan.manners)]
        pictures.append(artist.picture(manner.replace("{}", noun), index).read_bytes())
        hands.append(slug(manner.replace("{}", "")))
    concept = Concept(
        concept_id=slug(noun),
        name=noun,
        category=CATEGORY,
        severity="low",
        role="neutral",
        prompts=(f"a picture of {noun}",),
        picture_hands=tuple(hands) if all(hands) else (),
    )
    return concept, pictures
