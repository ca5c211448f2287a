"""What the gate tells whoever counts; it knows no metrics library."""

from __future__ import annotations

from typing import Literal

from loragate_server.errors import ErrorReason
from loragate_server.record.verdict import Verdict

CacheResult = Literal["hit", "miss", "expired"]
CACHE_RESULTS: tuple[CacheResult, ...] = ("hit", "miss", "expired")

GivenUp = Literal["stuck", "dead"]
GIVEN_UP: tuple[GivenUp, ...] = ("stuck", "dead")
"""Why another thread took the worker's place: it hung, or it had ended."""

STAGES = ("queued", "intake", "read", "screen", "response", "policy", "record")
"""Every stage name of `Verdict.stage_times_s` and `GateObserver.stage_seconds`, in order."""


class GateObserver:
    """Told of everything worth counting, and does nothing about it: subclasses count.

    Calls come from the event loop and must not block.
    """

    def decision(self, verdict: Verdict) -> None:
        """A caller is answered; `verdict.cached` says whether from the cache."""

    def recorded(self, verdict: Verdict) -> None:
        """A decision was written down; once, however many callers wait for it."""

    def failure(self, reason: ErrorReason) -> None:
        """A caller gets no decision."""

    def stage_seconds(self, stage: str, seconds: float) -> None:
        """One stage (of `STAGES`) of an audit that was run took this long."""

    def cache(self, result: CacheResult) -> None:
        """The verdict cache was asked."""

    def shared_flight(self) -> None:
        """A request joined an equal one that was already running."""

    def inflight_bytes(self, count: int) -> None:
        """Adapter bytes that requests in flight hold, after a change."""

    def queue_depth(self, depth: int) -> None:
        """Audits that wait for the worker, after a change."""

    def queue_wait_seconds(self, seconds: float) -> None:
        """An audit waited this long before the worker took it."""

    def worker_given_up(self, cause: GivenUp) -> None:
        """The thread that audits was given up."""

    def workers_stuck(self, count: int) -> None:
        """Threads that were given up and still run, after a change."""

    def endless_file(self) -> None:
        """A file was audited at which a loader's conversion does not end."""
