"""One thread that owns the device, behind a bounded queue, and one that watches it."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.gate.faults import audit_failed, log_stack
from loragate_server.gate.job import Job, Suspended, given_up, off_device
from loragate_server.gate.loop_calls import LoopCalls
from loragate_server.gate.observer import GateObserver, GivenUp
from loragate_server.gate.queue import FairQueue
from loragate_server.gate.tickets import Pace, Ticket, Tickets
from loragate_server.progress import Leash, deadline_passed, go_on

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
        self._waiting = FairQueue()
        self._changed = threading.Condition()
        self._closed = False
        self._broken = False
        self._when_broken: Callable[[], None] = lambda: None
        self._running: list[Job] = []
        """The last is at work; those before it let it pass."""
        self._lost: list[threading.Thread] = []
        self._calls = LoopCalls()
        self._thread = self._new_thread()
        self._end_watch = threading.Event()
        threading.Thread(target=self._watch, name=f"{name}-watch", daemon=True).start()

    @property
    def depth(self) -> int:
        """Audits that wait; the one that runs is not counted, nor is work in the background."""
        with self._changed:
            return sum(not job.background for job in self._waiting)

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
        self,
        work: Callable[[], Result],
        leash: Leash,
        *,
        background: bool = False,
        ticket: Ticket | None = None,
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

        Raises:
            NoDecisionError: QUEUE_FULL; DRAINING after `close`, or when the worker is broken;
                CANCELLED or DEADLINE_EXCEEDED; AUDIT_FAILED or OUT_OF_MEMORY when `work` raises
                anything but `NoDecisionError`; AUDIT_FAILED when it is given up.
        """
        loop = self._calls.loop = asyncio.get_running_loop()
        job = Job(work, leash, loop.create_future(), background)
        if not background:
            ticket = ticket or self.tickets.take("", leash)
            job.caller, job.begun = ticket.caller, ticket.leave
        with self._changed:
            if self._closed or self._broken:
                job.begun()
                raise draining()
            self._waiting.put(job)
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
        with self._changed:
            jobs = [*self._waiting, *self._running]
        expected = (self.pace.slow_s if job.suspicious else self.pace.quick_s for job in jobs)
        return max(0.1, sum(expected))

    def close(self, timeout_s: float | None = None) -> bool:
        """Refuses waiting and new work and waits for the running piece. Blocks.

        Returns:
            Whether the thread ended in time.
        """
        self._end_watch.set()
        with self._changed:
            self._closed = True
            left = self._waiting.clear()
            self._changed.notify_all()
        for job in left:
            self._calls.settle(job, error=draining())
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _withdraw(self, job: Job) -> None:
        job.begun()
        with self._changed:
            self._waiting.remove(job)

    def _new_thread(self) -> threading.Thread:
        thread = threading.Thread(target=self._work, name=self._name, daemon=True)
        thread.start()
        return thread

    def _work(self) -> None:
        while (job := self._next()) is not None:
            self._run(job)
            # Else the last job, its result and its tensors would live until the next one comes.
            del job

    def _next(self) -> Job | None:
        """The next piece of work for this thread; None when it is to end."""
        with self._changed:
            while not self._waiting and self._keeps_on():
                self._changed.wait()
            if not self._keeps_on():
                return None
            return self._begin(self._waiting.pop())

    def _next_quick(self) -> Job | None:
        """Work that passes what this thread is at, if there is any."""
        with self._changed:
            job = self._waiting.pop_before_slow() if self._keeps_on() else None
            return None if job is None else self._begin(job)

    def _begin(self, job: Job) -> Job:
        job.began_monotonic_s = job.charged_s = time.monotonic()
        job.begun()
        self._running.append(job)
        return job

    def _end(self, job: Job) -> None:
        """Takes a job down as done, unless it was given up and forgotten."""
        with self._changed:
            self._charge(job)
            if job in self._running:
                self._running.remove(job)

    def _charge(self, job: Job) -> None:
        now_s = time.monotonic()
        self._waiting.charge(job, now_s - job.charged_s)
        job.charged_s = now_s

    def _keeps_on(self) -> bool:
        mine = threading.current_thread() not in self._lost
        return mine and not self._closed and not self._broken

    def _run(self, job: Job) -> None:
        wait_s = job.began_monotonic_s - job.enqueued_monotonic_s
        if not (job.background or job.suspicious):
            self._calls.call(self._observer.queue_wait_seconds, wait_s)
        self._calls.call(self._observer.queue_depth, self.depth)
        try:
            job.leash.check()
            self._require_time(job)
            job.leash.turn = lambda: self._turn(job)
            result = job.run()
        except Suspended:
            self._end(job)
            self._took(job)
            self._put_back(job)
        except NoDecisionError as error:
            self._end(job)
            self._calls.settle(job, error=error)
        except BaseException as error:  # this thread has to outlive any audit
            self._end(job)
            self._calls.settle(job, error=audit_failed(error))
        else:
            self._end(job)
            self._took(job)
            self._calls.settle(job, result=result)
        finally:
            job.leash.turn = go_on  # else job and leash would hold each other

    def _require_time(self, job: Job) -> None:
        """Refuses work that would be thrown away: its caller is gone before half of it is done."""
        if not job.background:
            typical_s = self.pace.slow_s if job.suspicious else self.pace.quick_s
            if self.pace.hopeless(job.leash, typical_s / 2):
                raise deadline_passed()

    def _took(self, job: Job) -> None:
        if not job.background:
            spent_s = time.monotonic() - job.began_monotonic_s
            self.pace.took(spent_s, suspicious=job.suspicious)

    def _put_back(self, job: Job) -> None:
        """To be done anew, from its beginning, when its turn comes in the other lane."""
        job.suspicious = True
        with self._changed:
            if self._keeps_on() and not job.future.done():
                self._waiting.put(job)
                return
        self._calls.settle(job, error=draining())

    def _turn(self, job: Job) -> None:
        """Between two pieces of a job's work: puts it back, or lets others pass."""
        if not job.suspicious:
            with self._changed:
                alone = len(self._running) == 1 and not len(self._waiting)
            if not alone:
                raise Suspended
            self._end_first_look(job)
            return
        with self._changed:
            self._charge(job)
        while (quick := self._next_quick()) is not None:
            # The job itself touches no model now, so that one may hang without harm to it.
            with off_device():
                self._run(quick)
            job.charged_s = time.monotonic()
            job.leash.alive_monotonic_s = job.charged_s

    def _end_first_look(self, job: Job) -> None:
        """Nobody waits, so that the job need not be put back to go on."""
        with self._changed:
            self._charge(job)
            self._took(job)
            job.suspicious = True
        job.began_monotonic_s = time.monotonic()

    def _watch(self) -> None:
        """Looks after the thread that audits; must itself outlive whatever that does."""
        stuck = 0
        while not self._end_watch.wait(min(1.0, self._stuck_after_s / 4)):
            try:
                self._look()
                running = sum(thread.is_alive() for thread in self._lost) + self._broken
                if running != stuck:
                    stuck = running
                    self._calls.call(self._observer.workers_stuck, stuck)
            except Exception:
                _log.exception("the thread that audits could not be looked after")

    def _look(self) -> None:
        """Gives the thread up if it hangs or has ended."""
        with self._changed:
            if self._closed or self._broken:
                return
            jobs, cause = self._running, self._wrong()
            if cause is None:
                return
            # What hangs is judged and given up in one step, while it may come back to life. All
            # are: what lets others pass cannot go on either.
            off_the_device = [job.give_up() for job in jobs]
            clean = cause == "dead" or all(off_the_device)
            if cause == "stuck":
                self._lost.append(self._thread)
                log_stack(self._thread, self._stuck_after_s)
            hanging = sum(thread.is_alive() for thread in self._lost)
            self._broken = not clean or hanging > MOST_LOST
            self._running = []
            refused = [(job, given_up()) for job in jobs]
            if self._broken:
                refused += [(waiting, draining()) for waiting in self._waiting.clear()]
            else:
                self._thread = self._new_thread()
        # Told before it is answered, so that nobody who has the answer sees the counts of before.
        self._calls.call(self._observer.worker_given_up, cause)
        if self._broken:
            _log.error("the worker cannot be replaced: the process has to be started again")
            self._calls.call(self._when_broken)
        for one, error in refused:
            self._calls.settle(one, error=error)

    def _wrong(self) -> GivenUp | None:
        if not self._thread.is_alive():
            return "dead"
        if self._running and self._running[-1].silent_s() > self._stuck_after_s:
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
