"""One thread that owns the device, behind a bounded queue, and one that watches it."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.gate.faults import audit_failed
from loragate_server.gate.job import Job, given_up
from loragate_server.gate.observer import GateObserver, GivenUp
from loragate_server.progress import Leash

Result = TypeVar("Result")

_log = logging.getLogger(__name__)

STUCK_AFTER_S = 300.0
"""Without a sign of life for so long, work counts as stuck."""

MOST_LOST = 3
"""So many threads may hang while others go on with the work."""

_FIRST_GUESS_S = 1.0
_EWMA_WEIGHT = 0.2


class Worker:
    """Runs blocking work one piece at a time on its own thread.

    `submit`, `depth` and `close` belong to the event loop that was running when the first piece
    of work was submitted; the work itself runs on the thread.

    A second thread watches the first. Work that gives no sign of life for too long is given up:
    who waits for it is told so, and a new thread takes over, if the work was `off_device`. Else the
    model may be in any state, so the worker is `broken` for good and the process has to be
    started again. The same holds when too many threads hang: each may use a processor for ever.
    """

    def __init__(
        self,
        queue_limit: int,
        observer: GateObserver,
        name: str = "audit",
        *,
        stuck_after_s: float = STUCK_AFTER_S,
    ) -> None:
        if queue_limit < 1:
            raise ValueError(f"the queue must hold at least one audit, not {queue_limit}")
        self._limit = queue_limit
        self._observer = observer
        self._name = name
        self._stuck_after_s = stuck_after_s
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._broken = False
        self._when_broken: Callable[[], None] = lambda: None
        self._running: Job | None = None
        self._lost: list[threading.Thread] = []
        self._typical_s = _FIRST_GUESS_S
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = self._new_thread()
        self._end_watch = threading.Event()
        threading.Thread(target=self._watch, name=f"{name}-watch", daemon=True).start()

    @property
    def depth(self) -> int:
        """Audits that wait; the one that runs is not counted, nor is work in the background."""
        return sum(not job.background for job in list(self._waiting))

    @property
    def alive(self) -> bool:
        """Whether the thread still takes work."""
        return self._thread.is_alive() and not self._closed and not self._broken

    @property
    def broken(self) -> bool:
        """Whether the process has to be started again."""
        return self._broken

    def when_broken(self, told: Callable[[], None]) -> None:
        """Has `told` called on the event loop when the worker breaks."""
        self._when_broken = told

    async def submit(
        self, work: Callable[[], Result], leash: Leash, *, background: bool = False
    ) -> Result:
        """Runs `work` on the thread when its turn comes.

        Work whose leash no longer holds when its turn comes is not started. Cancelling the caller
        takes waiting work out of the queue; running work has to poll its leash.

        Args:
            work: what is to be done.
            leash: of whoever waits for it.
            background: a short piece of work of the server itself. It waits for its turn as all
                do, takes no audit's place in the queue, and is not counted among audits.

        Raises:
            NoDecisionError: QUEUE_FULL; DRAINING after `close`, or when the worker is broken;
                CANCELLED or DEADLINE_EXCEEDED; AUDIT_FAILED or OUT_OF_MEMORY when `work` raises
                anything but `NoDecisionError`; AUDIT_FAILED when it is given up.
        """
        self._loop = asyncio.get_running_loop()
        job = Job(work, leash, self._loop.create_future(), background)
        with self._changed:
            if self._closed or self._broken:
                raise draining()
            if not background and self.depth >= self._limit:
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
        return max(0.1, self._typical_s * (self.depth + (self._running is not None)))

    def close(self, timeout_s: float | None = None) -> bool:
        """Refuses waiting and new work and waits for the running piece. Blocks.

        Returns:
            Whether the thread ended in time.
        """
        self._end_watch.set()
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

    def _withdraw(self, job: Job) -> None:
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)

    def _new_thread(self) -> threading.Thread:
        thread = threading.Thread(target=self._work, name=self._name, daemon=True)
        thread.start()
        return thread

    def _work(self) -> None:
        while (job := self._next()) is not None:
            self._run(job)
            with self._changed:
                if self._running is job:
                    self._running = None
            # Else the last job, its result and its tensors would live until the next one comes.
            del job

    def _next(self) -> Job | None:
        """The next piece of work for this thread; None when it is to end."""
        with self._changed:
            while not self._waiting and self._keeps_on():
                self._changed.wait()
            if not self._keeps_on():
                return None
            job = self._waiting.popleft()
            job.began_monotonic_s = time.monotonic()
            self._running = job
            return job

    def _keeps_on(self) -> bool:
        mine = threading.current_thread() not in self._lost
        return mine and not self._closed and not self._broken

    def _run(self, job: Job) -> None:
        wait_s = job.began_monotonic_s - job.enqueued_monotonic_s
        if not job.background:
            self._call_loop(self._observer.queue_wait_seconds, wait_s)
        self._call_loop(self._observer.queue_depth, self.depth)
        try:
            job.leash.check()
            result = job.run()
        except NoDecisionError as error:
            self._settle(job, error=error)
        except BaseException as error:  # this thread has to outlive any audit
            self._settle(job, error=audit_failed(error))
        else:
            spent_s = time.monotonic() - job.began_monotonic_s
            if not job.background:
                self._typical_s += _EWMA_WEIGHT * (spent_s - self._typical_s)
            self._settle(job, result=result)

    def _watch(self) -> None:
        """Looks after the thread that audits; must itself outlive whatever that does."""
        stuck = 0
        while not self._end_watch.wait(min(1.0, self._stuck_after_s / 4)):
            try:
                self._look()
                running = sum(thread.is_alive() for thread in self._lost) + self._broken
                if running != stuck:
                    stuck = running
                    self._call_loop(self._observer.workers_stuck, stuck)
            except Exception:
                _log.exception("the thread that audits could not be looked after")

    def _look(self) -> None:
        """Gives the thread up if it hangs or has ended."""
        with self._changed:
            if self._closed or self._broken:
                return
            job, cause = self._running, self._wrong()
            if cause is None:
                return
            # What hangs is judged and given up in one step, while it may come back to life.
            clean = cause == "dead" or (job is not None and job.give_up())
            if cause == "stuck":
                self._lost.append(self._thread)
                _log_stack(self._thread, self._stuck_after_s)
            hanging = sum(thread.is_alive() for thread in self._lost)
            self._broken = not clean or hanging > MOST_LOST
            self._running = None
            refused = [] if job is None else [(job, given_up())]
            if self._broken:
                refused += [(waiting, draining()) for waiting in self._waiting]
                self._waiting.clear()
            else:
                self._thread = self._new_thread()
        # Told before it is answered, so that nobody who has the answer sees the counts of before.
        self._call_loop(self._observer.worker_given_up, cause)
        if self._broken:
            _log.error("the worker cannot be replaced: the process has to be started again")
            self._call_loop(self._when_broken)
        for one, error in refused:
            self._settle(one, error=error)

    def _wrong(self) -> GivenUp | None:
        if not self._thread.is_alive():
            return "dead"
        if self._running is not None and self._running.silent_s() > self._stuck_after_s:
            return "stuck"
        return None

    def _settle(
        self, job: Job, *, result: object = None, error: NoDecisionError | None = None
    ) -> None:
        def settle() -> None:
            if job.future.done():
                return
            if error is None:
                job.future.set_result(result)
            else:
                job.future.set_exception(error)

        self._call_loop(settle)

    def _call_loop(self, function: Callable[..., None], *arguments: object) -> None:
        """Calls a function on the event loop; nobody waits where there is none."""
        if self._loop is None:
            return
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            _log.warning("an audit ended after the event loop that waited for it")


def _log_stack(thread: threading.Thread, silent_s: float) -> None:
    """Says where a thread hangs: names of functions and lines, no values."""
    frame = sys._current_frames().get(thread.ident or 0)
    where = "".join(traceback.format_stack(frame)) if frame is not None else ""
    _log.error("an audit gave no sign of life for %.0f s and is given up:\n%s", silent_s, where)


def draining() -> NoDecisionError:
    """The refusal of new work while the server stops."""
    return NoDecisionError(
        ErrorReason.DRAINING,
        "The server is shutting down and takes no new work.",
        remedy="Ask another replica, or ask again when the server is back.",
        retry_after_s=1.0,
    )
