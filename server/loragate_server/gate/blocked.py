"""`Blocked`: what the adapters of a request, each and all together, have of blocked ones."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate, islice, pairwise, product

import numpy as np

from loragate_server.audit.evidence import SKETCH_DIMENSIONS
from loragate_server.gate.kinship import (
    CANDIDATE_COSINE,
    COPY_COSINE,
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

MOST_SUMS = 8192
"""Ways of adding up that are looked at. Readings of one rank in their files come first, which as a
rule are those of the same loader; eight adapters at one strength have 247 subsets."""
_AT_ONCE = 256

Found = tuple[tuple[Part, KnownUse], ...]
Chosen = Sequence[tuple[ReviewedAdapter, Change]]
"""Adapters that are active together, and what each changes."""


@dataclass(frozen=True)
class Asked:
    """An adapter that is asked about.

    Attributes:
        sketches: one per reading of its file.
        ways: each way in which it may be used; at least one.
    """

    sketches: Sequence[bytes]
    ways: Sequence[ReviewedAdapter]

    @cached_property
    def chosen(self) -> Sequence[tuple[ReviewedAdapter, Change]]:
        """It in every way and by every reading, the readings of one way beside each other."""
        return [
            (way, change_of(sketch, way.denoiser_strength, way.text_encoder_strength))
            for way in sorted(set(self.ways))
            for sketch in self.sketches
        ]


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
            for one, use in self._once(way, ([one] for one in adapter.chosen if one[0] == way))
        }
        if len(asked) > 1:
            told = {(one.copy, _use(one.blocked)) for one in found}
            key = tuple(tuple(sorted(set(one.ways))) for one in asked)
            found |= {
                Kin(one.copy, one.share, one.amount, None, use)
                for one, use in self._once(key, self._alike(asked))
                if not told & {(one.copy, _use(use)), (True, _use(use))}
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

    @cached_property
    def _known(self) -> Change:
        """The changes once more, float64: noise that cancels may be louder than what is left."""
        return self.changes.astype(np.float64)

    @cached_property
    def _norms(self) -> Change:
        """Of each blocked one: of all of it, and of its denoiser alone; [n, 2]."""
        halves = (self._known, self._known[:, :SKETCH_DIMENSIONS])
        return np.stack([np.linalg.norm(one, axis=1) for one in halves], axis=1)

    def _alike(self, asked: Sequence[Asked]) -> Iterator[Chosen]:
        """The sums that have anything in common with a blocked one; few of thousands have."""
        every = [one for adapter in asked for one in adapter.chosen]
        if not every:
            return
        changes = np.array([change for _, change in every])
        text = slice(SKETCH_DIMENSIONS, None)
        denoiser = changes.copy()
        denoiser[:, text] = 0.0  # what is changed of text encoders may have no effect
        sums = islice(_sums(asked), MOST_SUMS)
        inners = [(part, part @ self._known.T) for part in (changes, denoiser)]
        while some := list(islice(sums, _AT_ONCE)):
            taken = np.zeros((len(some), len(every)))
            for row, chosen in enumerate(some):
                taken[row, chosen] = 1.0
            alike = np.zeros(len(some), dtype=bool)
            for half, (part, inner) in enumerate(inners):
                sizes = np.linalg.norm(taken @ part, axis=1)[:, None] * self._norms[None, :, half]
                alike |= (taken @ inner >= CANDIDATE_COSINE * sizes).any(axis=1, where=sizes > 0)
            yield from ([every[index] for index in some[row]] for row in np.flatnonzero(alike))

    def _measured(self, chosen: Chosen) -> Iterator[tuple[Part, KnownUse]]:
        """What some adapters, active together, have of the blocked ones.

        What is asked about is judged itself, and is no kin of its own: it is passed over alone,
        and among others, as its weak copies are, where they bring no more of it.
        """
        changes, uses = self.changes, self.uses
        if len(chosen) == 1:
            own = np.array([_file(use) == file_of(chosen[0][0]) for use in uses])
            changes = changes[~own]
            uses = [use for use, same in zip(uses, own, strict=True) if not same]
        change = np.sum([one for _, one in chosen], axis=0)
        found = parts_of(change, changes)
        if not found and changes[:, SKETCH_DIMENSIONS:].any() | change[SKETCH_DIMENSIONS:].any():
            # what is changed of the text encoders may have no effect on pictures
            rest = parts_of(change[:SKETCH_DIMENSIONS], changes[:, :SKETCH_DIMENSIONS])
            found = tuple(replace(one, copy=False) for one in rest)
        for part in found:
            use = uses[part.index]
            blocked = changes[part.index].astype(np.float64)
            brought = 0.0 if len(chosen) == 1 else _brought(use, blocked, chosen)
            if part.amount > brought + (LEAST_AMOUNT if brought else 0.0):
                yield part, use


def _brought(use: KnownUse, blocked: Change, chosen: Chosen) -> float:
    """How much of a blocked one an adapter alone brings that is it, or a copy; 0 where none is."""
    size = float(np.linalg.norm(blocked))
    found = [0.0]
    for way, change in chosen:
        inner, norm = float(change @ blocked), float(np.linalg.norm(change))
        if file_of(way) == _file(use) or inner >= COPY_COSINE * norm * size > 0:
            found.append(inner / size**2)
    return max(found)


def file_of(way: ReviewedAdapter) -> tuple[str, str]:
    """What is the same at every strength."""
    return way.sha256, way.config_sha256


def _file(use: KnownUse) -> tuple[str, str]:
    return file_of(use.members[0])


def _use(use: KnownUse) -> tuple[str, Members]:
    return use.decision_id, use.members


def _sums(asked: Sequence[Asked]) -> Iterator[tuple[int, ...]]:
    """Every way in which two or more are active together, as indices into all that are chosen.

    Any of them may be missing: a loader may refuse a file that the request does not leave out.
    """
    starts = list(accumulate((len(one.chosen) for one in asked), initial=0))
    whole = [range(*span) for span in pairwise(starts)]
    ranks = max((len(one.sketches) for one in asked), default=0)
    aligned = (
        [
            [
                span[at]
                for at in range(min(rank, len(one.sketches) - 1), len(span), len(one.sketches))
            ]
            if one.sketches
            else []
            for one, span in zip(asked, whole, strict=True)
        ]
        for rank in range(ranks)
    )
    told = set[tuple[int, ...]]()
    groups: Iterable[Sequence[Sequence[int]]] = (*aligned, whole)
    for choices in groups:
        for some in product(*((*choice, None) for choice in choices)):
            there = tuple(index for index in some if index is not None)
            if len(there) > 1 and there not in told:
                told.add(there)
                yield there


def _most(found: Iterable[Kin]) -> tuple[Kin, ...]:
    """Of several findings about one adapter and one blocked one, that with the largest share."""
    most: dict[tuple[int | None, str, Members], Kin] = {}
    for one in sorted(found, key=lambda kin: (kin.copy, kin.share, kin.amount)):
        most[one.adapter, one.blocked.decision_id, one.blocked.members] = one
    return tuple(sorted(most.values(), key=lambda kin: (-kin.copy, -kin.share, kin.adapter or 0)))
