"""What the concepts in question look like, as far as people may be shown it."""

from __future__ import annotations

import base64
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from loragate_server.errors import NoDecisionError
from loragate_server.policy.decision import GRAVITY, Decision, VerdictKind
from loragate_server.severity import SEVERITIES
from loragate_server.wording.printable import printable

MOST_PICTURES = 6
MOST_CONCEPTS = 3
MOST_BYTES = 512 * 1024
"""Of all pictures in one report; what is beyond is left out and counted."""

_LONGEST_NAME = 80


class Shown(Protocol):
    """What is needed of a concept of the library."""

    @property
    def concept_id(self) -> str:
        """Names it."""

    @property
    def name(self) -> str:
        """For people."""

    @property
    def category(self) -> str:
        """Such as likeness."""

    @property
    def severity(self) -> str:
        """As the library has it now."""

    @property
    def picture_files(self) -> Sequence[Path]:
        """Where its pictures lie."""

    @property
    def picture_sha256(self) -> Sequence[str]:
        """Their digests."""


@dataclass(frozen=True)
class Viewing:
    """What may be seen of the pictures of a library.

    Attributes:
        find: gives a concept by its id; raises NoDecisionError where there is none.
        veiled_severities: pictures of concepts of these are blurred until they are wanted.
        sensitive_categories: of concepts of these no picture is ever shown.
    """

    find: Callable[[str], Shown]
    veiled_severities: Collection[str]
    sensitive_categories: Collection[str]

    def veils(self, *severities: str) -> bool:
        """Whether pictures are blurred of what has any of these severities."""
        grave = gravest(severities)
        return grave in self.veiled_severities or grave not in SEVERITIES


@dataclass(frozen=True)
class References:
    """The pictures of one concept.

    Attributes:
        pictures: digests that they are served by, or addresses that hold them whole; empty where
            none may or can be shown.
        veiled: whether each is blurred until the reader wants to see it.
        hidden: whether its category is one whose pictures are never shown.
        left_out: pictures for which a report has no room.
    """

    concept_id: str
    name: str
    pictures: tuple[str, ...]
    veiled: bool
    hidden: bool
    left_out: int = 0


def references(decision: Decision, viewing: Viewing) -> tuple[References, ...]:
    """Of the gravest concepts that the policy acted on, as far as the library still has them."""
    return tuple(one for one, _ in _found(decision, viewing))


def embedded(
    decision: Decision, viewing: Viewing, thumbnail: Callable[[Path, str], bytes]
) -> tuple[References, ...]:
    """The same with the pictures themselves, for a report that needs nothing else. Blocks.

    Args:
        decision: whose concepts are shown.
        viewing: what may be seen.
        thumbnail: gives a PNG of a file with this digest; raises NoDecisionError where the file
            is no longer what the library was opened with, which is left out.
    """
    left, made = MOST_BYTES, []
    for one, concept in _found(decision, viewing):
        pictures: list[str] = []
        files = dict(zip(concept.picture_sha256, concept.picture_files, strict=True))
        for sha256 in one.pictures:
            try:
                data = thumbnail(files[sha256], sha256)
            except NoDecisionError:
                continue
            if len(data) <= left:
                left -= len(data)
                pictures.append(f"data:image/png;base64,{base64.b64encode(data).decode()}")
        missing = len(one.pictures) - len(pictures)
        made.append(replace(one, pictures=tuple(pictures), left_out=missing))
    return tuple(made)


def rank(severity: str) -> int:
    """Severities in order; what no version knows counts as the gravest."""
    return SEVERITIES.index(severity) if severity in SEVERITIES else len(SEVERITIES)


def gravest(severities: Iterable[str]) -> str:
    """The gravest of some; "" of none."""
    return max(severities, key=rank, default="")


def _found(decision: Decision, viewing: Viewing) -> Iterator[tuple[References, Shown]]:
    acted = [one for one in decision.findings if one.verdict is not VerdictKind.ALLOW]
    acted.sort(key=lambda one: (GRAVITY[one.verdict], rank(one.evidence.severity)), reverse=True)
    for one in acted[:MOST_CONCEPTS]:
        try:
            concept = viewing.find(one.evidence.concept_id)
        except NoDecisionError:  # it was taken out of the library since
            continue
        hidden = concept.category in viewing.sensitive_categories
        yield (
            References(
                concept_id=concept.concept_id,
                name=printable(concept.name, _LONGEST_NAME),
                pictures=() if hidden else tuple(concept.picture_sha256[:MOST_PICTURES]),
                veiled=viewing.veils(one.evidence.severity, concept.severity),
                hidden=hidden,
            ),
            concept,
        )
