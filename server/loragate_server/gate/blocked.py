"""`Blocked`: what the adapters of a request, each and all together, have of blocked ones."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, product

import numpy as np

from loragate_server.audit.evidence import SKETCH_DIMENSIONS
from loragate_server.audit.uses import MOST_USES
from loragate_server.gate.kinship import (
    LEAST_AMOUNT,
    Change,
    Part,
    Sketches,
    change_of,
    parts_of,
)
from loragate_server.policy.known import KnownUse, Members
from loragate_server.policy.lineage import Kin
from loragate_server.policy.review import ReviewedAdapter
from loragate_server.recent import REMEMBERED

MOST_SUMS = 4 * MOST_USES
"""A request that can be used in more than `MOST_USES` ways is not vouched for; files with several
readings add up in some ways that no loader has."""

Found = tuple[tuple[Part, KnownUse], ...]
Chosen = Sequence[tuple[ReviewedAdapter, Change]]
"""Adapters that are active together, and what each changes."""


@dataclass(frozen=True)
class Asked:
    """An adapter that is asked about.

    Attributes:
        sketches: one per reading of its file.
        ways: each way in which it may be used; at least one.
        optional: whether the image server may leave it out.
    """

    sketches: Sequence[bytes]
    ways: Sequence[ReviewedAdapter]
    optional: bool = False


@dataclass(frozen=True)
class Blocked:
    """The blocked adapters of one base model.

    Attributes:
        uses: how each was blocked, alone.
        changes: float32 [n, 2048], their sketches at those strengths.
    """

    uses: Sequence[KnownUse]
    changes: Sketches
    _found: dict[Hashable, Found] = field(default_factory=dict, repr=False)

    def kin_of(self, asked: Sequence[Asked]) -> tuple[Kin, ...]:
        """What the adapters have of blocked ones, the most of it first.

        Of what they add up to, that alone which none of them has by itself.
        """
        found = {
            Kin(one.copy, one.share, one.amount, number, use)
            for number, adapter in enumerate(asked)
            for way in adapter.ways
            for one, use in self._once(way, _each(adapter, way))
        }
        if len(asked) > 1:
            told = {(one.copy, one.blocked.decision_id) for one in found}
            key = tuple((tuple(one.ways), one.optional) for one in asked)
            found |= {
                Kin(one.copy, one.share, one.amount, None, use)
                for one, use in self._once(key, islice(_sums(asked), MOST_SUMS))
                if not told & {(one.copy, use.decision_id), (True, use.decision_id)}
            }
        return _most(found)

    def _once(self, key: Hashable, every: Iterable[Chosen]) -> Found:
        found = self._found.get(key)
        if found is None:
            if len(self._found) >= REMEMBERED:
                self._found.clear()
            found = tuple(one for chosen in every for one in self._measured(chosen))
            self._found[key] = found
        return found

    def _measured(self, chosen: Chosen) -> Iterator[tuple[Part, KnownUse]]:
        """What some adapters, active together, have of the blocked ones.

        What is asked about is judged itself, and is no kin of its own: it is passed over alone,
        and among others where they bring no more of it.
        """
        changes, uses = self.changes, self.uses
        asked = {file_of(way) for way, _ in chosen}
        own = np.array([file_of(use.members[0]) in asked for use in uses])
        if len(chosen) == 1 and own.any():
            changes = changes[~own]
            uses = [use for use, same in zip(uses, own, strict=True) if not same]
        change = np.sum([one for _, one in chosen], axis=0)
        found = parts_of(change, changes)
        if not found and changes[:, SKETCH_DIMENSIONS:].any() | change[SKETCH_DIMENSIONS:].any():
            # what is changed of the text encoders may have no effect on pictures
            rest = parts_of(change[:SKETCH_DIMENSIONS], changes[:, :SKETCH_DIMENSIONS])
            found = tuple(replace(one, copy=False) for one in rest)
        for part in found:
            use, blocked = uses[part.index], changes[part.index].astype(np.float64)
            brought = sum(one @ blocked for way, one in chosen if file_of(way) == _file(use))
            if part.amount > brought / (blocked @ blocked) + (LEAST_AMOUNT if brought else 0):
                yield part, use


def file_of(way: ReviewedAdapter) -> tuple[str, str]:
    """What is the same at every strength."""
    return way.sha256, way.config_sha256


def _file(use: KnownUse) -> tuple[str, str]:
    return file_of(use.members[0])


def _each(adapter: Asked, way: ReviewedAdapter) -> Iterator[Chosen]:
    """An adapter alone, by every reading of its file."""
    for sketch in adapter.sketches:
        yield [(way, change_of(sketch, way.denoiser_strength, way.text_encoder_strength))]


def _sums(asked: Sequence[Asked]) -> Iterator[Chosen]:
    """Every way in which two and more of the adapters are active together."""
    choices = [
        [
            *(one for way in adapter.ways for [one] in _each(adapter, way)),
            *([None] if adapter.optional or not adapter.sketches else []),
        ]
        for adapter in asked
    ]
    for chosen in product(*choices):
        there = [one for one in chosen if one is not None]
        if len(there) > 1:
            yield there


def _most(found: Iterable[Kin]) -> tuple[Kin, ...]:
    """Of several findings about one adapter and one blocked one, that with the largest share."""
    most: dict[tuple[int | None, str, Members], Kin] = {}
    for one in sorted(found, key=lambda kin: (kin.copy, kin.share, kin.amount)):
        most[one.adapter, one.blocked.decision_id, one.blocked.members] = one
    return tuple(sorted(most.values(), key=lambda kin: (-kin.copy, -kin.share, kin.adapter or 0)))
