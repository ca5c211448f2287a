"""`LineageBook`: sketches of blocked adapters, in memory, for a gate that must not wait."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from loragate_server.audit.evidence import Evidence
from loragate_server.gate.blocked import Asked, Blocked, file_of
from loragate_server.gate.key import AdapterKey
from loragate_server.gate.kinship import Sketches, change_of
from loragate_server.policy.known import KnownUse
from loragate_server.policy.lineage import Kin
from loragate_server.policy.review import ReviewedAdapter
from loragate_server.recent import REMEMBERED
from loragate_server.record.database import Database
from loragate_server.record.follow import POLL_INTERVAL_S, Follower
from loragate_server.record.known_book import KnownBook
from loragate_server.record.sketch_rows import SketchKey, read_sketches, sketches_of
from loragate_server.record.verdict import Verdict

UNKNOWN = "?"
"""Stands in a key for an adapter whose sketch is not at hand: no measured verdict has it."""

_LARGEST = 1e30
"""Products of what is larger may overflow."""


class LineageBook(Follower):
    """Follows what is on record as blocked, with the sketches of those adapters. Thread-safe.

    A file that was blocked alone, at whatever strength, counts until exactly that use is allowed
    (`KnownBook`). What is blocked here counts at once, what another replica blocked within a
    second or two.
    """

    def __init__(
        self,
        database: Database,
        known: KnownBook,
        *,
        remembered: int = REMEMBERED,
        poll_interval_s: float = POLL_INTERVAL_S,
    ) -> None:
        super().__init__("lineage", poll_interval_s)
        self._database = database
        self._known = known
        self._remembered = remembered
        self._lock = threading.Lock()
        self._seen: OrderedDict[SketchKey, tuple[bytes, ...]] = OrderedDict()
        self._parents: dict[SketchKey, tuple[bytes, ...]] = {}
        self._read: set[str] = set()
        self._revision = self._read_revision = -1
        self._blocked: Mapping[str, Blocked] = {}

    def about(self, evidence: Evidence) -> tuple[Kin, ...]:
        """What the adapters of an audit have of blocked ones, the most of it first."""
        blocked = self._blocked.get(evidence.base_digest)
        if blocked is None:
            return ()
        return blocked.kin_of(
            [
                Asked(
                    one.sketches,
                    [
                        ReviewedAdapter(one.sha256, one.config_sha256, *strength)
                        for strength in _strengths(evidence, number)
                    ],
                )
                for number, one in enumerate(evidence.adapters)
            ]
        )

    async def decisions_about(
        self, adapters: Sequence[AdapterKey], base_digest: str
    ) -> tuple[str, ...]:
        """The decisions that `about` names, and as what, for the key of a cached verdict.

        What was not asked before is worked out on a thread, for it may take a second.

        Args:
            adapters: of a request.
            base_digest: of the base model.
        """
        blocked = self._blocked.get(base_digest)
        if blocked is None:
            return ()
        asked = []
        for one in adapters:
            with self._lock:
                sketches = self._seen.get(SketchKey(base_digest, one.sha256, one.config_sha256))
            if sketches is None:
                return (UNKNOWN,)
            asked.append(Asked(sketches, one.ways))
        kin = blocked.recalled(asked)
        return decisions_of(await asyncio.to_thread(blocked.kin_of, asked) if kin is None else kin)

    def learn(self, verdict: Verdict) -> None:
        """Takes in what was just recorded here, after `KnownBook` has."""
        with self._lock:
            for key, made in sketches_of(verdict):
                self._seen[key] = tuple(made)
                self._seen.move_to_end(key)
            while len(self._seen) > self._remembered:
                self._seen.popitem(last=False)
        if self._known.revision != self._revision:
            self._follow_known(self._seen)

    def refresh(self) -> None:
        """Reads the sketches of what is blocked now."""
        revision = self._known.revision
        if revision == self._read_revision:
            return
        # A sketch is recorded with the decision, so what is missing now is missing for good; a
        # later decision may have read more of the file, here or elsewhere.
        uses = self._known.alone()
        unread = {_key(use) for use in uses if use.decision_id not in self._read}
        with self._database.reading() as connection:
            found = read_sketches(connection, unread)
        self._follow_known(found)
        self._read = {use.decision_id for use in uses}
        self._read_revision = revision

    def _follow_known(self, more: Mapping[SketchKey, tuple[bytes, ...]]) -> None:
        """Takes over which uses stand blocked, with the sketches that are known of them."""
        with self._lock:
            revision = self._known.revision
            uses = self._known.alone()
            wanted = set(map(_key, uses))
            new = {}
            for key in wanted:
                made, before = more.get(key, ()), self._parents.get(key, ())
                # as in the table: fewer readings than before take nothing away
                if made != before and len(made) >= len(before):
                    new[key] = made
            if revision == self._revision and not new:
                return
            kept = {key: one for key, one in self._parents.items() if key in wanted}
            self._parents = {**kept, **new}
            self._blocked = self._by_base(uses)
            self._revision = revision

    def _by_base(self, uses: Iterable[KnownUse]) -> dict[str, Blocked]:
        found: dict[str, list[tuple[KnownUse, Sketches]]] = {}
        for use in uses:
            [way] = use.members
            for sketch in self._parents.get(_key(use), ()):
                change = change_of(sketch, way.denoiser_strength, way.text_encoder_strength)
                if largest := float(np.abs(change).max()):
                    # at any size that float32 has, squared sums included, it is as well known
                    change *= min(1.0, _LARGEST / largest)
                    rows = found.setdefault(use.base_digest, [])
                    rows.append((use, change.astype(np.float32)))
        return {
            base: Blocked(tuple(use for use, _ in rows), np.stack([one for _, one in rows]))
            for base, rows in found.items()
        }


def decisions_of(kin: Iterable[Kin]) -> tuple[str, ...]:
    """The decisions that blocked them, each with what was found of it, sorted, for a key.

    What was a part may be a copy, or not be compared to the end, once more is known.
    """
    found = ((one.blocked.decision_id, one.copy, one.amount > 0) for one in kin)
    return tuple(sorted({f"{decision} {copy:d}{seen:d}" for decision, copy, seen in found}))


def _strengths(evidence: Evidence, adapter: int) -> list[tuple[float, float]]:
    """Every strength at which an adapter was judged."""
    own = evidence.adapters[adapter]
    found = [(own.denoiser_strength, own.text_encoder_strength)]
    found += [
        (used.denoiser_strength, used.text_encoder_strength)
        for use in evidence.uses
        for used in use.adapters
        if used.adapter == adapter
    ]
    return list(dict.fromkeys(found))


def _key(use: KnownUse) -> SketchKey:
    return SketchKey(use.base_digest, *file_of(use.members[0]))
