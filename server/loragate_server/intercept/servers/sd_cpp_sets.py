"""Which LoRAs of a request stable-diffusion.cpp has active together, and how strongly."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum, auto

from loragate_server.adapter.reference import Strength
from loragate_server.intercept.reading.findings import Found
from loragate_server.intercept.reading.sets import MOST_ADAPTERS, settled, used_at
from loragate_server.intercept.refusals import ambiguous_adapter


class Source(StrEnum):
    """What names a LoRA."""

    LIST = auto()
    """`lora` of the body."""
    ARGUMENTS = auto()
    """`lora` of the arguments in the prompt."""
    TAG = auto()


@dataclass(frozen=True)
class Mention:
    """A LoRA named in a request.

    Attributes:
        strength: as sent.
        high_noise: whether it is for the model of the steps with much noise.
    """

    found: Found
    source: Source
    strength: float
    high_noise: bool


def together(mentions: Sequence[Mention], *, has_list: bool) -> tuple[Found, ...]:
    """The LoRAs of a request as the gate has to judge them.

    A list in the body takes the place of one in the arguments; until it came, servers knew only
    those. Tags add to either, where they are read at all. Models of two parts draw with the LoRAs
    of one of them, and what a file holds for the other part it brings along.

    Args:
        mentions: every LoRA of the request, in the order in which the server reads them.
        has_list: whether the body has a list that the server reads.

    Raises:
        RefusedRequestError: ADAPTER_AMBIGUOUS for a strength that the server cannot hold.
    """
    added = _added(mentions)
    found = [one.found for one in added]
    if len(found) > MOST_ADAPTERS:
        return tuple(found)
    listed, given, tags = (
        {number for number, one in enumerate(added) if one.source is source} for source in Source
    )
    high = {number for number, one in enumerate(added) if one.high_noise}
    read = [listed] if has_list else []
    read += [given] if given or not has_list else []
    sets = [
        part
        for one in read
        for active in (one, one | tags)
        for part in (active, active - high, active & high)
    ]
    return settled(found, sets)


def _added(mentions: Sequence[Mention]) -> list[Mention]:
    """Each file once for each part of the model: the server adds up what comes several times."""
    kept: dict[tuple[object, ...], list[Mention]] = {}
    for one in mentions:
        key = (one.source, one.found.reference.path, one.high_noise)
        kept.setdefault(key, []).append(one)
    return [_sum(each) for each in kept.values()]


def _sum(mentions: Sequence[Mention]) -> Mention:
    first, *others = mentions
    total = _single(first.strength, first.found.place)
    for one in others:
        total = _single(total + _single(one.strength, one.found.place), one.found.place)
    strength = _as_written(total) if others else first.strength
    reference = used_at(first.found.reference, (Strength(strength, strength),))
    twins = tuple(one.found.spot for one in others)
    return replace(first, found=replace(first.found, reference=reference, twins=twins))


def _single(value: float, place: str) -> float:
    """A number as the server holds it: in 32 bits."""
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError as error:
        raise ambiguous_adapter(
            place, "is no strength that the server can hold.", "Send a smaller number."
        ) from error


def _as_written(value: float) -> float:
    """The shortest decimal number that is this one in 32 bits: 0.3 for 0.30000001192092896."""
    short = (float(f"{value:.{digits}g}") for digits in range(6, 10))
    return next((one for one in short if _single(one, "") == value), value)
