"""`Blocked`: what the adapters of a request, each and all together, have of blocked ones."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
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
    UNSEEN,
    Change,
    Part,
    Sketches,
    change_of,
    parts_of,
)
from loragate_server.gate.sums import Known, Related, alike_sums
from loragate_server.policy.known import KnownUse, Members
from loragate_server.policy.lineage import Kin
from loragate_server.policy.review import ReviewedAdapter
from loragate_server.recent import REMEMBERED

MOST_MEASURED = 256
"""Sums that are fitted by blocked adapters for one question: some milliseconds each."""

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
        return blake2b(b"".join(self.sketches), digest_size=16).digest()


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

    @cached_property
    def _known(self) -> Known:
        return Known(self.changes)

    def recalled(self, asked: Sequence[Asked]) -> tuple[Kin, ...] | None:
        """As `kin_of`; None where that has to be worked out, which may take a second."""
        keys: list[Hashable] = [(way, one.read_as) for one in asked for way in one.ways]
        if len(asked) > 1:
            keys.append(_together_key(asked))
        return self.kin_of(asked) if all(key in self._found for key in keys) else None

    def kin_of(self, asked: Sequence[Asked]) -> tuple[Kin, ...]:
        """What the adapters have of blocked ones, the most of it first.

        Of what they add up to, that alone which none of them has by itself.
        """
        found = {
            Kin(one.copy, one.share, one.amount, number, use)
            for number, adapter in enumerate(asked)
            for way in adapter.ways
            for one, use in self._once((way, adapter.read_as), self._alone(adapter, way))
        }
        if len(asked) > 1:
            told = {(_use(one.blocked), one.copy) for one in found}
            found |= {
                Kin(one.copy, one.share, one.amount, None, use)
                for one, use in self._once(_together_key(asked), self._together(asked, told))
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
        for chosen in adapter.chosen:
            if chosen[0] == way:
                yield from self._measured([chosen])

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
        changes = np.array([change for _, _, change in every])
        told, left = set(told), MOST_MEASURED
        for related in alike_sums([number for number, _, _ in every], changes, self._known):
            whole = related.whole
            for there, cosines in zip(related.sums, related.cosines, strict=True):
                if not self._says_more(related, cosines, told):
                    continue
                if not left:
                    whole = False
                    break
                left -= 1
                for part, use in self._measured([every[index][1:] for index in there]):
                    if not told & {(_use(use), part.copy), (_use(use), True)}:
                        told.add((_use(use), part.copy))
                        yield part, use
            if not whole:
                yield UNSEEN, self.uses[related.nearest]

    def _says_more(self, related: Related, cosines: Sketches, told: Told) -> bool:
        """Whether a sum may be a copy, or hold a part, of a blocked one that is not told of yet."""
        for index, cosine in zip(related.known, cosines, strict=True):
            use = _use(self.uses[index])
            if cosine >= COPY_COSINE and (use, True) not in told:
                return True
            if cosine >= CANDIDATE_COSINE and not told & {(use, True), (use, False)}:
                return True
        return False

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
            slack = LEAST_AMOUNT if brought else 0.0
            if part.amount > brought + slack or (part.copy and brought < ENOUGH):
                yield part, use


def _together_key(asked: Sequence[Asked]) -> Hashable:
    return tuple((tuple(sorted(set(one.ways))), one.read_as) for one in asked)


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
