"""The verdict cache: recorded verdicts until they expire; the least recently used go first."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from loragate_server.gate.key import VerdictKey
from loragate_server.gate.observer import GateObserver
from loragate_server.record.verdict import Verdict


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class _Entry:
    verdict: Verdict
    deadline_monotonic_s: float


class VerdictCache:
    """Answers equal questions with the verdict already on record.

    Only recorded verdicts may be put in, so an answer from here is in the decision log. Used from
    one event loop only.
    """

    def __init__(
        self,
        limit: int,
        observer: GateObserver,
        *,
        now: Callable[[], datetime] = _utc_now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        if limit < 0:
            raise ValueError(f"the cache limit must not be negative, but is {limit}")
        self._limit = limit
        self._observer = observer
        self._now = now
        self._monotonic = monotonic
        self._entries: OrderedDict[VerdictKey, _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: VerdictKey, *, again: bool = False) -> Verdict | None:
        """The verdict for `key`, marked as cached, or None.

        Args:
            key: the question.
            again: the same request has asked before, and its miss is counted already.
        """
        entry = self._entries.get(key)
        if entry is None:
            if not again:
                self._observer.cache("miss")
            return None
        # Two clocks: a wall clock that is set back must not lengthen a verdict's life.
        if (
            self._monotonic() >= entry.deadline_monotonic_s
            or self._now() >= entry.verdict.expires_at
        ):
            del self._entries[key]
            self._observer.cache("expired")
            return None
        self._entries.move_to_end(key)
        self._observer.cache("hit")
        return entry.verdict

    def put(self, key: VerdictKey, verdict: Verdict) -> None:
        """Remembers a recorded verdict until `verdict.expires_at`."""
        life_s = (verdict.expires_at - self._now()).total_seconds()
        if life_s <= 0 or self._limit == 0:
            return
        self._entries[key] = _Entry(_trimmed(verdict), self._monotonic() + life_s)
        self._entries.move_to_end(key)
        while len(self._entries) > self._limit:
            self._entries.popitem(last=False)

    def clear(self) -> None:
        """Forgets everything."""
        self._entries.clear()


def _trimmed(verdict: Verdict) -> Verdict:
    """The verdict as it will be given again: with what answers hold, and no more.

    Profile, heat map, sketches, and the evidence of concepts that no finding is about are most of
    a verdict's memory; the record keeps them.
    """
    own = verdict.decision.evidence
    adapters = tuple(replace(one, sketches=()) for one in own.adapters)
    evidence = replace(own, adapters=adapters, layers=(), heat_map=None, concepts=(), packed="")
    return replace(verdict, decision=replace(verdict.decision, evidence=evidence), cached=True)
