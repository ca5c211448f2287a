"""Reads requests beside the event loop: on a few threads, and each for a limited time.

A body may have many megabytes. However it is made, every other check, and the probes that tell
whether the server lives, must be answered meanwhile.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from typing import TypeVar

from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.gate.intake import until_deadline
from loragate_server.intercept.extraction import RefusedRequestError
from loragate_server.intercept.refusals import reading_too_long
from loragate_server.progress import Leash
from loragate_server.threads import DaemonPool
from loragate_server.time_limit import TimeLimitError, cpu_time_limit, watch_from_now_on

Result = TypeVar("Result")

SMALL_BYTES = 64 << 10
"""Bodies up to this are read on threads of their own, so that they never wait for large ones."""
SMALL_THREADS, LARGE_THREADS = 2, 1
"""Readers share the interpreter with the event loop, so more of them would not read faster."""
MOST_WAITING = 256
"""Requests of one of the two kinds that may wait for a thread."""
STUCK_S = 60.0
"""For so long all threads may be busy before reading counts as stuck: a folder of LoRAs, in which
names are looked up, may lie on a file system that has gone."""


class RequestReader:
    """Runs extractors on threads of its own, each run for a limited processor time."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._small = DaemonPool(SMALL_THREADS, "read-small")
        self._large = DaemonPool(LARGE_THREADS, "read-large")
        self._waiting = {self._small: 0, self._large: 0}
        watch_from_now_on()

    async def run(self, work: Callable[[], Result], body_bytes: int, leash: Leash) -> Result:
        """What `work` gives, which reads a body of so many bytes.

        Raises:
            RefusedRequestError: READING_TOO_LONG, and whatever `work` refuses.
            NoDecisionError: DEADLINE_EXCEEDED or CANCELLED; QUEUE_FULL where too many wait.
        """
        leash.check()
        pool = self._small if body_bytes <= SMALL_BYTES else self._large
        if self._waiting[pool] >= MOST_WAITING:
            raise NoDecisionError(
                ErrorReason.QUEUE_FULL,
                f"{MOST_WAITING} requests wait to be read.",
                remedy="Ask again later, or send smaller requests.",
                retry_after_s=1.0,
            )
        self._waiting[pool] += 1
        try:
            running = asyncio.wrap_future(pool.submit(self._limited, work))
            return await until_deadline(running, leash)
        finally:
            self._waiting[pool] -= 1

    def require_free(self, stuck_s: float = STUCK_S) -> None:
        """Raises while no request can be read, because all threads still read others.

        Raises:
            RuntimeError: so it is for longer than `stuck_s`.
        """
        busy_s = max(self._small.busy_s(), self._large.busy_s())
        if busy_s > stuck_s:
            raise RuntimeError(f"all threads that read requests are busy for {busy_s:.0f} s")

    def close(self) -> None:
        """Takes no more work; what runs is left alone."""
        for pool in self._waiting:
            pool.shutdown(cancel_futures=True)

    def _limited(self, work: Callable[[], Result]) -> Result:
        with _no_collection:
            try:
                with cpu_time_limit(self._limit_s):
                    return work()
            except TimeLimitError:
                refused = reading_too_long(self._limit_s)
            except RefusedRequestError as error:
                refused = error
                refused.__cause__ = refused.__context__ = None
            # The frames that raised hold all that was read, which is to be freed on this thread.
            raise refused.with_traceback(None)


class _NoCollection:
    """Keeps the garbage collector from running while anything is read.

    It stops every thread, the event loop too, for as long as it looks through all that a body
    holds: half a second for millions of values. What is read from a body forms no circles, so it
    is freed without the collector.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            gc.disable()

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                gc.enable()


_no_collection = _NoCollection()
