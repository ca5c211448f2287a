"""Which LoRAs of a request A1111 and its relatives have active together, and how strongly."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

from loragate_server.adapter.reference import Strength
from loragate_server.intercept.reading.findings import Found
from loragate_server.intercept.reading.sets import MOST_ADAPTERS, settled, used_at
from loragate_server.intercept.reading.tags import Tag
from loragate_server.intercept.refusals import Location

OPTION = "sd_lora"
"""The option that adds a LoRA to every prompt."""

_PROMPT: Location = ("prompt",)
_SECOND_PASS = frozenset[Location]({("hr_prompt",), ("hr_negative_prompt",)})
_BESIDE = frozenset[Location]({("negative_prompt",), ("override_settings", OPTION)})


@dataclass(frozen=True)
class Mention:
    """A LoRA named in a request.

    Attributes:
        location: of the string that names it.
        name: as written.
        tag: None for an option.
        choice: which of several files that the name may mean this is; empty for the only one.
        drawn: whether a server may leave the tag out of the text: it stands in a choice, in a
            comment or in another tag.
    """

    found: Found
    location: Location
    name: str
    tag: Tag | None = None
    choice: str = ""
    drawn: bool = False

    @property
    def form(self) -> Hashable:
        """How it is written: servers differ in which forms they read; None for one all read."""
        if self.drawn and self.tag is not None:
            return self.tag.span, self.choice
        if self.choice:
            return OPTION if self.tag is None else self.tag.kind, self.choice
        if self.tag is None:
            return OPTION
        if self.tag.everywhere:
            return None
        return self.tag.kind, bool(self.tag.numbers), frozenset(self.tag.named), "/" in self.name


def together(mentions: Sequence[Mention], *, second_pass: bool) -> tuple[Found, ...]:
    """The LoRAs of a request as the gate has to judge them.

    The prompt is read by every server. The second pass reads its own prompts instead. The
    negative prompt and the option may add to these. Of other texts nobody knows: extensions
    take them instead of the prompt, or with it, or not at all.

    Args:
        mentions: every LoRA of the request.
        second_pass: whether there is a prompt for it, with LoRAs or without.
    """
    if len(mentions) > MOST_ADAPTERS:
        return tuple(one.found for one in mentions)
    first = [n for n, one in enumerate(mentions) if one.location == _PROMPT]
    second = [n for n, one in enumerate(mentions) if one.location in _SECOND_PASS]
    beside = [n for n, one in enumerate(mentions) if one.location in _BESIDE]
    others = set(range(len(mentions))) - {*first, *second, *beside}
    read = [
        passed | added
        for part in ((first, second) if second or second_pass else (first,))
        for passed in _ways(mentions, part)
        for added in (frozenset(), *_ways(mentions, beside))
    ]
    elsewhere = [
        way
        for location in {mentions[n].location for n in others}
        for way in _ways(mentions, [n for n in others if mentions[n].location == location])
    ]
    sets = [*read, *elsewhere, *(one | others for one in read if others)]
    return settled(_at_last_strength(mentions), sets)


def _ways(mentions: Sequence[Mention], part: Sequence[int]) -> list[frozenset[int]]:
    """What servers read of one text: all know one form of tags, and differ in the others."""
    forms = {mentions[n].form for n in part}
    common = frozenset(n for n in part if mentions[n].form is None)
    return [
        common,
        *(common | {n for n in part if mentions[n].form == form} for form in forms),
        frozenset(part),
    ]


def _at_last_strength(mentions: Sequence[Mention]) -> list[Found]:
    """The LoRAs, with the strength that is named last for each name beside their own.

    A server that keeps one object per name applies it as often as it is named, each time at the
    strength that came last; others apply each at its own.
    """
    last: dict[tuple[str, Location], tuple[Strength, ...]] = {}
    for one in mentions:
        last[one.name, one.location] = one.found.reference.strengths
    found = []
    for one in mentions:
        reference = one.found.reference
        strengths = [each for (name, _), ends in last.items() if name == one.name for each in ends]
        found.append(
            replace(one.found, reference=used_at(reference, (*reference.strengths, *strengths)))
        )
    return found
