"""`Blocked`: what the adapters of a request, each and all together, have of blocked ones."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import blake2b

import numpy as np

from loragate_server.audit.evidence import SKETCH_DIMENSIONS
from loragate_server.gate.kinship import (
    CANDIDATE_COSINE,
    COPY_COSINE,
    ENOUGH,
    LEAST_AMOUNT,
    MOST_CANDIDATES,
    PART_COSINE,
    UNSEEN,
    Change,
    Part,
    Sketches,
    change_of,
    parts_of,
)
from loragate_server.gate.sums import Flags, Indices, Known, Related, alike_sums
from loragate_server.policy.known import KnownUse, Members
from loragate_server.policy.lineage import Kin
from loragate_server.policy.review import ReviewedAdapter
from loragate_server.recent import REMEMBERED

MOST_MEASURED = 40_000
"""Blocked adapters by which sums are fitted, and four more a sum, for one question: two seconds."""
_SLACK = 1e-3
"""Of cosines, by which what is fitted is chosen."""

Found = tuple[tuple[Part, KnownUse], ...]
Chosen = Sequence[tuple[ReviewedAdapter, Change]]
"""Adapters that are active together, and what each changes."""
Told = set[tuple[tuple[str, Members], bool]]
"""Uses of blocked adapters, each as a copy (true) or as a part."""


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

    @cached_property
    def read_as(self) -> bytes:
        """Names what the readings are: a file may be read otherwise another time."""
        sizes = repr([len(one) for one in self.sketches]).encode()
        return blake2b(b"".join([sizes, *self.sketches]), digest_size=16).digest()


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
    _working: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @cached_property
    def _known(self) -> Known:
        return Known(self.changes)

    def recalled(self, asked: Sequence[Asked]) -> tuple[Kin, ...] | None:
        """As `kin_of`; None where that has to be worked out, which may take a second."""
        try:
            return self._kin(asked, lambda key, _: self._found[key])
        except KeyError:
            return None

    def kin_of(self, asked: Sequence[Asked]) -> tuple[Kin, ...]:
        """What the adapters have of blocked ones, the most of it first.

        Of what they add up to, that alone which none of them has by itself.
        """
        with self._working:  # of equal questions at one moment, one is worked out
            return self._kin(asked, self._once)

    def _kin(
        self,
        asked: Sequence[Asked],
        once: Callable[[Hashable, Iterable[tuple[Part, KnownUse]]], Found],
    ) -> tuple[Kin, ...]:
        found = {
            Kin(one.copy, one.share, one.amount, number, use)
            for number, adapter in enumerate(asked)
            for way in adapter.ways
            for one, use in once((way, adapter.read_as), self._alone(adapter, way))
        }
        if len(asked) > 1:
            told = {(_use(one.blocked), one.copy) for one in found}
            key = tuple((tuple(sorted(set(one.ways))), one.read_as) for one in asked)
            found |= {
                Kin(one.copy, one.share, one.amount, None, use)
                for one, use in once(key, self._together(asked, told))
            }
        return _most(found)

    def _once(self, key: Hashable, every: Iterable[tuple[Part, KnownUse]]) -> Found:
        found = self._found.get(key)
        if found is None:
            if len(self._found) >= REMEMBERED:
                self._found.clear()
            found = tuple(every)
            self._found[key] = found
        return found

    def _alone(self, adapter: Asked, way: ReviewedAdapter) -> Iterator[tuple[Part, KnownUse]]:
        """What one adapter has, used in one way. Nothing is done before the first is asked for."""
        # it is judged itself, and is no kin of its own
        others = np.array([_file(use) != file_of(way) for use in self.uses])
        changes = self.changes if others.all() else self.changes[others]
        uses = [use for use, other in zip(self.uses, others, strict=True) if other]
        for chosen in adapter.chosen:
            if chosen[0] == way:
                for part in _measured([chosen], uses, changes):
                    yield part, uses[part.index]

    def _together(self, asked: Sequence[Asked], told: Told) -> Iterator[tuple[Part, KnownUse]]:
        """What any two or more of the adapters have that none has by itself.

        Any of them may be missing: a loader may refuse a file that the request does not leave out.

        Args:
            asked: two or more.
            told: of which blocked ones an adapter alone was found to be a copy, or to hold a part.
        """
        every = [(number, *one) for number, adapter in enumerate(asked) for one in adapter.chosen]
        if len({number for number, _, _ in every}) < 2:
            return
        owners = [number for number, _, _ in every]
        changes = np.array([change for _, _, change in every])
        told, looked_at, left = set(told), set[tuple[int, ...]](), MOST_MEASURED

        def more(known: Indices, cosines: Sketches) -> Flags:
            return _says_more([self.uses[index] for index in known], cosines, told)

        for related in alike_sums(owners, changes, self._known, more):
            whole = related.whole
            for there, cosines in zip(related.sums, related.cosines, strict=True):
                if there in looked_at or not more(related.known, cosines[None]).any():
                    continue
                left -= 4 + min(int(np.sum(cosines >= CANDIDATE_COSINE)), MOST_CANDIDATES)
                if left < 0:
                    whole = False
                    break
                looked_at.add(there)
                for part, use in self._added_up(
                    [every[index][1:] for index in there], related, told
                ):
                    if not told & {(_use(use), part.copy), (_use(use), True)}:
                        told.add((_use(use), part.copy))
                        yield part, use
            if not whole:
                yield UNSEEN, self.uses[related.nearest]

    def _added_up(
        self, chosen: Chosen, related: Related, told: Told
    ) -> Iterator[tuple[Part, KnownUse]]:
        """What a sum has of the blocked ones; none has anything of it but those it may be like.

        What a copy holds besides may be of any other.
        """
        for known in (related.known, np.arange(len(self.uses))):
            uses = [self.uses[index] for index in known]
            found = [(one, uses[one.index]) for one in _measured(chosen, uses, self.changes[known])]
            if not any(one.copy and (_use(use), True) not in told for one, use in found):
                break
        yield from found


def _says_more(uses: Sequence[KnownUse], cosines: Sketches, told: Told) -> Flags:
    """Of sums, whether they may be a copy, or hold a part, of blocked ones not told of yet.

    One holds parts where it is like one of them, or where several may explain it.
    """
    copied = np.array([(_use(use), True) in told for use in uses], dtype=bool)
    known = copied | np.array([(_use(use), False) in told for use in uses], dtype=bool)
    candidates = cosines >= CANDIDATE_COSINE - _SLACK
    several = np.count_nonzero(candidates, axis=1, keepdims=True) > 1
    parts = candidates & (several | (cosines >= PART_COSINE - _SLACK)) & ~known
    copies = (cosines >= COPY_COSINE - _SLACK) & ~copied
    found: Flags = np.any(parts | copies, axis=1)
    return found


def _measured(chosen: Chosen, uses: Sequence[KnownUse], changes: Sketches) -> Sequence[Part]:
    """What some adapters, active together, have of some blocked ones.

    Passed over is what one of them brings that is the blocked one, or a weak copy of it, where the
    others bring no more of it.
    """
    change = np.sum([one for _, one in chosen], axis=0)

    def more(part: Part) -> bool:
        blocked = changes[part.index].astype(np.float64)
        brought = 0.0 if len(chosen) == 1 else _brought(uses[part.index], blocked, chosen)
        slack = LEAST_AMOUNT if brought else 0.0
        return part.amount > brought + slack or (part.copy and brought < ENOUGH)

    found = [part for part in parts_of(change, changes) if more(part)]
    if not found and changes[:, SKETCH_DIMENSIONS:].any() | change[SKETCH_DIMENSIONS:].any():
        # what is changed of the text encoders may have no effect on pictures
        rest = parts_of(change[:SKETCH_DIMENSIONS], changes[:, :SKETCH_DIMENSIONS])
        found = [replace(part, copy=False) for part in rest if more(replace(part, copy=False))]
    return found


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


def _most(found: Iterable[Kin]) -> tuple[Kin, ...]:
    """Of several findings about one adapter and one blocked one, that with the largest share."""
    most: dict[tuple[int | None, bool, str, Members], Kin] = {}
    for one in sorted(found, key=lambda kin: (kin.copy, kin.share, kin.amount)):
        most[one.adapter, one.amount > 0, one.blocked.decision_id, one.blocked.members] = one
    return tuple(sorted(most.values(), key=lambda kin: (-kin.copy, -kin.share, kin.adapter or 0)))
