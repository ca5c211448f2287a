"""One thread that owns the device, behind a bounded queue, and one that watches it."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.gate.faults import log_stack
from loragate_server.gate.floor import Floor
from loragate_server.gate.hands import Hands
from loragate_server.gate.job import Job, Sharing, given_up
from loragate_server.gate.loop_calls import LoopCalls
from loragate_server.gate.observer import GateObserver, GivenUp
from loragate_server.gate.tickets import Pace, Ticket, Tickets
from loragate_server.progress import Leash

Result = TypeVar("Result")

_log = logging.getLogger(__name__)

STUCK_AFTER_S = 300.0
"""Without a sign of life for so long, work counts as stuck."""

MOST_LOST = 3
"""So many threads may hang while others go on with the work."""


class Worker:
    """Runs blocking work one piece at a time on its own thread.

    Work whose first look finds a suspect is put back once, behind the first looks that wait, and
    lets further ones pass between two of its pieces: see `FairQueue`.

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
        self.pace = Pace()
        self.tickets = Tickets(queue_limit, self.pace)
        self._observer = observer
        self._name = name
        self._stuck_after_s = stuck_after_s
        self._floor = Floor()
        self._when_broken: Callable[[], None] = lambda: None
        self._calls = LoopCalls()
        self._hands = Hands(
            self._floor, self.pace, self._calls, observer, lambda: self.depth, draining
        )
        self._thread = self._new_thread()
        self._end_watch = threading.Event()
        threading.Thread(target=self._watch, name=f"{name}-watch", daemon=True).start()

    @property
    def depth(self) -> int:
        """Audits that wait; the one that runs is not counted, nor is work in the background."""
        with self._floor.changed:
            return sum(not job.background for job in self._floor.waiting)

    @property
    def alive(self) -> bool:
        """Whether the thread still takes work."""
        return self._thread.is_alive() and not self._floor.closed and not self._floor.broken

    @property
    def broken(self) -> bool:
        """Whether the process has to be started again."""
        return self._floor.broken

    def when_broken(self, told: Callable[[], None]) -> None:
        """Has `told` called on the event loop when the worker breaks."""
        self._when_broken = told

    async def submit(
        self,
        work: Callable[[], Result],
        leash: Leash,
        *,
        background: bool = False,
        ticket: Ticket | None = None,
        sharing: Sharing | None = None,
    ) -> Result:
        """Runs `work` on the thread when its turn comes.

        Work whose leash no longer holds when its turn comes is not started. Cancelling the caller
        takes waiting work out of the queue; running work has to poll its leash.

        Args:
            work: what is to be done.
            leash: of whoever waits for it.
            background: a short piece of work of the server itself. It waits for its turn as all
                do, takes no audit's place in the queue, and is not counted among audits.
            ticket: the place in the queue that was taken before; else one is taken now.
            sharing: how it begins together with other work that waits; what comes of it is the
                same.

        Raises:
            NoDecisionError: QUEUE_FULL; DRAINING after `close`, or when the worker is broken;
                CANCELLED or DEADLINE_EXCEEDED; AUDIT_FAILED or OUT_OF_MEMORY when `work` raises
                anything but `NoDecisionError`; AUDIT_FAILED when it is given up.
        """
        loop = self._calls.loop = asyncio.get_running_loop()
        job = Job(work, leash, loop.create_future(), background, sharing=sharing)
        if not background:
            ticket = ticket or self.tickets.take("", leash)
            job.caller, job.begun = ticket.caller, ticket.leave
        floor = self._floor
        with floor.changed:
            if floor.closed or floor.broken:
                job.begun()
                raise draining()
            floor.waiting.put(job)
            floor.changed.notify()
        self._observer.queue_depth(self.depth)
        try:
            result: Result = await job.future
        finally:
            self._withdraw(job)
            self._observer.queue_depth(self.depth)
            del job  # else the error that it ended with would hold it
        return result

    def retry_after_s(self) -> float:
        """Seconds after which the work that is here now should be done, by recent durations."""
        with self._floor.changed:
            jobs = [*self._floor.waiting, *self._floor.company, *self._floor.running]
        expected = (self.pace.slow_s if job.suspicious else self.pace.quick_s for job in jobs)
        return max(0.1, sum(expected))

    def close(self, timeout_s: float | None = None) -> bool:
        """Refuses waiting and new work and waits for the running piece. Blocks.

        Returns:
            Whether the thread ended in time.
        """
        self._end_watch.set()
        with self._floor.changed:
            self._floor.closed = True
            left = self._floor.waiting.clear()
            self._floor.changed.notify_all()
        for job in left:
            self._calls.settle(job, error=draining())
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _withdraw(self, job: Job) -> None:
        job.begun()
        with self._floor.changed:
            self._floor.waiting.remove(job)

    def _new_thread(self) -> threading.Thread:
        thread = threading.Thread(target=self._hands.work, name=self._name, daemon=True)
        thread.start()
        return thread

    def _watch(self) -> None:
        """Looks after the thread that audits; must itself outlive whatever that does."""
        stuck, pause_s = 0, min(1.0, self._stuck_after_s / 4)
        looked_s = time.monotonic()
        while not self._end_watch.wait(pause_s):
            try:
                # A container that was frozen, or a machine that had no time: nobody hung. What
                # hangs is found all the same: each look counts the time between two.
                late_s, looked_s = time.monotonic() - looked_s - pause_s, time.monotonic()
                self._look(max(0.0, late_s))
                lost = sum(thread.is_alive() for thread in self._floor.lost) + self.broken
                if lost != stuck:
                    stuck = lost
                    self._calls.call(self._observer.workers_stuck, stuck)
            except Exception:
                _log.exception("the thread that audits could not be looked after")

    def _look(self, late_s: float) -> None:
        """Gives the thread up if it hangs or has ended.

        Args:
            late_s: so long the process had no time for this look.
        """
        floor = self._floor
        with floor.changed:
            if floor.closed or floor.broken:
                return
            if floor.running:
                floor.running[-1].excuse(late_s)
            jobs, company, cause = floor.running, floor.company, self._wrong()
            if cause is None:
                return
            # What hangs is judged and given up in one step, while it may come back to life. All
            # are: what lets others pass cannot go on either.
            off_the_device = [job.give_up() for job in jobs]
            clean = cause == "dead" or all(off_the_device)
            if cause == "stuck":
                floor.lost.append(self._thread)
                log_stack(self._thread, self._stuck_after_s)
            hanging = sum(thread.is_alive() for thread in floor.lost)
            floor.broken = not clean or hanging > MOST_LOST
            floor.running, floor.company = [], []
            refused = [(job, given_up()) for job in jobs]
            # Those that began together with what hangs begin anew.
            for job in company:
                floor.waiting.put(job)
            if floor.broken:
                refused += [(waiting, draining()) for waiting in floor.waiting.clear()]
            else:
                self._thread = self._new_thread()
        # Told before it is answered, so that nobody who has the answer sees the counts of before.
        self._calls.call(self._observer.worker_given_up, cause)
        if floor.broken:
            _log.error("the worker cannot be replaced: the process has to be started again")
            self._calls.call(self._when_broken)
        for one, error in refused:
            self._calls.settle(one, error=error)

    def _wrong(self) -> GivenUp | None:
        if not self._thread.is_alive():
            return "dead"
        running = self._floor.running
        if running and running[-1].silent_s() > self._stuck_after_s:
            return "stuck"
        return None


def draining() -> NoDecisionError:
    """The refusal of new work while the server stops."""
    return NoDecisionError(
        ErrorReason.DRAINING,
        "The server is shutting down and takes no new work.",
        remedy="Ask another replica, or ask again when the server is back.",
        retry_after_s=1.0,
    )
