"""LoRAs that a graph of ComfyUI seems to name twice: in a constant, and where a node takes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from loragate_server.adapter.reference import Strength
from loragate_server.intercept.reading.findings import Found
from loragate_server.intercept.reading.sets import used_at

Owned = tuple[Found, str | None]
"""A LoRA, and the node that applies it; None where that may be any, or none."""


def without_doubles(direct: Sequence[Owned], linked: Sequence[Owned]) -> list[Owned]:
    """All LoRAs, without those of a constant that are found again where a node takes it.

    Places are made plain for people, so two may look alike; locations never do.
    """
    names = {one.spot.location for one, _ in linked if one.spot and one.spot.within is None}
    tags: dict[Any, tuple[Strength, ...]] = {}
    kept: list[Owned] = []
    for one, owner in direct:
        if one.spot is None or one.spot.within is not None or one.spot.location not in names:
            kept.append((one, owner))
            tags[one.reference.path, one.spot] = one.reference.strengths
    found: list[Owned] = []
    again = set()
    for one, owner in linked:
        key = one.reference.path, one.spot
        if owner is None and one.spot is not None and key in tags:
            again.add(key)
            both = used_at(one.reference, (*one.reference.strengths, *tags[key]))
            found.append((replace(one, reference=both), owner))
        else:
            found.append((one, owner))
    return [pair for pair in kept if (pair[0].reference.path, pair[0].spot) not in again] + found
