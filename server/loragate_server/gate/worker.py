"""One thread that owns the device, behind a bounded queue."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import Any, TypeVar

from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.gate.observer import GateObserver
from loragate_server.progress import Leash

Result = TypeVar("Result")

_log = logging.getLogger(__name__)

_FIRST_GUESS_S = 1.0
_EWMA_WEIGHT = 0.2


@dataclass(eq=False)
class _Job:
    work: Callable[[], Any]
    leash: Leash
    future: asyncio.Future[Any]
    context: Context
    enqueued_monotonic_s: float = field(default_factory=time.monotonic)


class Worker:
    """Runs blocking work one piece at a time on its own thread.

    `submit`, `depth` and `close` belong to the event loop that was running when the first piece
    of work was submitted; the work itself runs on the thread.
    """

    def __init__(self, queue_limit: int, observer: GateObserver, name: str = "audit") -> None:
        if queue_limit < 1:
            raise ValueError(f"the queue must hold at least one audit, not {queue_limit}")
        self._limit = queue_limit
        self._observer = observer
        self._waiting: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._busy = False
        self._typical_s = _FIRST_GUESS_S
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self._thread.start()

    @property
    def depth(self) -> int:
        """Pieces of work that wait; the one that runs is not counted."""
        return len(self._waiting)

    @property
    def alive(self) -> bool:
        """Whether the thread still takes work."""
        return self._thread.is_alive() and not self._closed

    async def submit(self, work: Callable[[], Result], leash: Leash) -> Result:
        """Runs `work` on the thread when its turn comes.

        Work whose leash no longer holds when its turn comes is not started. Cancelling the caller
        takes waiting work out of the queue; running work has to poll its leash.

        Raises:
            NoDecisionError: QUEUE_FULL; DRAINING after `close`; CANCELLED or DEADLINE_EXCEEDED;
                AUDIT_FAILED when `work` raises anything but `NoDecisionError`.
        """
        job = _Job(work, leash, asyncio.get_running_loop().create_future(), copy_context())
        with self._changed:
            if self._closed:
                raise draining()
            if len(self._waiting) >= self._limit:
                raise self._full()
            self._waiting.append(job)
            self._changed.notify()
        self._observer.queue_depth(self.depth)
        try:
            result: Result = await job.future
        finally:
            self._withdraw(job)
            self._observer.queue_depth(self.depth)
        return result

    def retry_after_s(self) -> float:
        """Seconds after which the work that is here now should be done, by recent durations."""
        return max(0.1, self._typical_s * (self.depth + self._busy))

    def close(self, timeout_s: float | None = None) -> bool:
        """Refuses waiting and new work and waits for the running piece. Blocks.

        Returns:
            Whether the thread ended in time.
        """
        with self._changed:
            self._closed = True
            left, self._waiting = self._waiting, deque()
            self._changed.notify_all()
        for job in left:
            self._settle(job, error=draining())
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _full(self) -> NoDecisionError:
        return NoDecisionError(
            ErrorReason.QUEUE_FULL,
            f"{self._limit} audits wait already.",
            remedy="Ask again later, or run more replicas.",
            metadata={"queue_limit": str(self._limit)},
            retry_after_s=self.retry_after_s(),
        )

    def _withdraw(self, job: _Job) -> None:
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)

    def _loop(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                job = self._waiting.popleft()
                self._busy = True
            try:
                self._run(job)
            finally:
                self._busy = False
            # Else the last job, its result and its tensors would live until the next one comes.
            del job

    def _run(self, job: _Job) -> None:
        began = time.monotonic()
        wait_s = began - job.enqueued_monotonic_s
        self._call_loop(job, self._observer.queue_wait_seconds, wait_s)
        self._call_loop(job, self._observer.queue_depth, self.depth)
        try:
            job.leash.check()
            result = job.context.run(job.work)
        except NoDecisionError as error:
            self._settle(job, error=error)
        except BaseException as error:  # this thread has to outlive any audit
            self._settle(job, error=audit_failed(error))
        else:
            spent_s = time.monotonic() - began
            self._typical_s += _EWMA_WEIGHT * (spent_s - self._typical_s)
            self._settle(job, result=result)

    def _settle(
        self, job: _Job, *, result: object = None, error: NoDecisionError | None = None
    ) -> None:
        def settle() -> None:
            if job.future.done():
                return
            if error is None:
                job.future.set_result(result)
            else:
                job.future.set_exception(error)

        self._call_loop(job, settle)

    @staticmethod
    def _call_loop(job: _Job, function: Callable[..., None], *arguments: object) -> None:
        try:
            job.future.get_loop().call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            _log.warning("an audit ended after the event loop that waited for it")


def audit_failed(error: BaseException) -> NoDecisionError:
    """Logs an unexpected exception under a fresh id, and hides its text from the caller."""
    incident = uuid.uuid4().hex
    _log.error("audit failed, incident %s", incident, exc_info=error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        _release_memory(error)
        return NoDecisionError(
            ErrorReason.AUDIT_FAILED,
            "The audit ran out of memory.",
            remedy="Ask again with fewer or smaller adapters, or give the server more memory.",
            metadata={"incident": incident},
        )
    return NoDecisionError(
        ErrorReason.AUDIT_FAILED,
        "The audit failed by a fault of the server.",
        remedy=f"Look for incident {incident} in the server's log.",
        metadata={"incident": incident},
    )


def _release_memory(error: BaseException) -> None:
    """Lets go of the failed audit's tensors, which the traceback's frames hold."""
    import torch

    error.__traceback__ = None
    error.__context__ = None
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def draining() -> NoDecisionError:
    """The refusal of new work while the server stops."""
    return NoDecisionError(
        ErrorReason.DRAINING,
        "The server is shutting down and takes no new work.",
        remedy="Ask another replica, or ask again when the server is back.",
        retry_after_s=1.0,
    )
