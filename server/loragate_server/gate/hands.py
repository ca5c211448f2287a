"""`Hands`: does the work of a `Floor`, on whichever thread is its at the time."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from loragate_server.errors import NoDecisionError
from loragate_server.gate.faults import audit_failed
from loragate_server.gate.floor import Floor
from loragate_server.gate.job import Job, Suspended, off_device
from loragate_server.gate.loop_calls import LoopCalls
from loragate_server.gate.observer import GateObserver
from loragate_server.gate.tickets import Pace
from loragate_server.progress import deadline_passed, go_on

_log = logging.getLogger(__name__)


class Hands:
    """Runs work one piece after the other, or the beginnings of several together.

    Args:
        floor: where the work is.
        pace: told how long it takes.
        calls: to whoever waits for it.
        observer: told how long it waited.
        depth: how much waits.
        closing: the refusal of work that is not begun any more.
    """

    def __init__(
        self,
        floor: Floor,
        pace: Pace,
        calls: LoopCalls,
        observer: GateObserver,
        depth: Callable[[], int],
        closing: Callable[[], NoDecisionError],
    ) -> None:
        self._floor = floor
        self._pace = pace
        self._calls = calls
        self._observer = observer
        self._depth = depth
        self._closing = closing

    def work(self) -> None:
        """Goes on until the floor is closed, or the thread is given up."""
        while (job := self._floor.next()) is not None:
            self.do(job)
            # Else the last job, its result and its tensors would live until the next one comes.
            del job

    def do(self, job: Job) -> None:
        """Does a piece of work that has just begun, and what begins together with it."""
        jobs = [job]
        if job.sharing is not None and job.sharing.ready() and not job.suspicious:
            jobs = self._floor.together_with(job, self._pace.quick_s)
        if len(jobs) == 1:
            self._run(job)
            return
        try:
            self._run_together(jobs)
        finally:
            for left in self._floor.disperse():
                self._calls.settle(left, error=self._closing())

    def _run(self, job: Job) -> None:
        self._tell_wait(job)
        try:
            job.leash.check()
            self._require_time(job)
            job.leash.turn = lambda: self._turn(job)
            result = job.run()
        except Suspended:
            self._end(job)
            self._put_back(job)
        except BaseException as error:  # this thread has to outlive any audit
            self._fail(job, error)
        else:
            self._end(job)
            self._calls.settle(job, result=result)
        finally:
            job.leash.turn = go_on  # else job and leash would hold each other

    def _run_together(self, jobs: Sequence[Job]) -> None:
        """Prepares each alone, so that what is wrong with one stays with it; then all at once."""
        prepared: list[tuple[Job, Any]] = []
        try:
            for job in jobs:
                if not self._floor.take_up(job):
                    return
                self._tell_wait(job)
                so_far = len(prepared)
                prepared += self._prepared(job)
                if len(prepared) > so_far and not self._floor.lay_down(job):
                    return
            if prepared and self._floor.take_up_all([job for job, _ in prepared]):
                self._finish_together(prepared)
        finally:
            # An error that was told leads back to here, and would keep what the others have read.
            prepared.clear()

    def _prepared(self, job: Job) -> list[tuple[Job, Any]]:
        """What came of preparing a job, if anything."""
        try:
            job.leash.check()
            self._require_time(job)
            return [(job, job.prepare())]
        except BaseException as error:  # as above
            if self._floor.is_mine:
                self._fail(job, error)
            return []

    def _finish_together(self, prepared: Sequence[tuple[Job, Any]]) -> None:
        sharing = prepared[0][0].sharing
        assert sharing is not None  # noqa: S101 - only such work has company
        began_s = time.monotonic()
        try:
            results = sharing.finish([made for _, made in prepared])
        except BaseException as error:  # somebody's, and the others must not suffer for it
            _log.warning("%d audits are done one by one", len(prepared), exc_info=error)
            self._one_by_one([job for job, _ in prepared], time.monotonic() - began_s)
            return
        ended_s = time.monotonic()
        share_s = (ended_s - began_s) / len(prepared)
        for (job, _), result in zip(prepared, results, strict=True):
            job.charged_s = ended_s - share_s
            job.took_s += share_s
            self._end(job)
            if result is None:
                self._put_back(job)
            else:
                self._calls.settle(job, result=result)

    def _one_by_one(self, jobs: Sequence[Job], spent_s: float) -> None:
        for job in jobs:
            job.charged_s = time.monotonic() - spent_s / len(jobs)
            self._floor.end(job)
            job.sharing = None
        for job in jobs:
            self._put_back(job, suspicious=False)

    def _fail(self, job: Job, error: BaseException) -> None:
        self._floor.end(job)
        told = error if isinstance(error, NoDecisionError) else audit_failed(error)
        # Who waits is told what it was; the frames that it came through hold what was read.
        told.__traceback__ = told.__context__ = None
        self._calls.settle(job, error=told)

    def _end(self, job: Job) -> None:
        self._floor.end(job)
        if not job.background:
            self._pace.took(job.spent_s(), suspicious=job.suspicious)

    def _tell_wait(self, job: Job) -> None:
        wait_s = job.began_monotonic_s - job.enqueued_monotonic_s
        if not (job.background or job.suspicious):
            self._calls.call(self._observer.queue_wait_seconds, wait_s)
        self._calls.call(self._observer.queue_depth, self._depth())

    def _require_time(self, job: Job) -> None:
        """Refuses work that would be thrown away: its caller is gone before half of it is done."""
        if not job.background:
            typical_s = self._pace.slow_s if job.suspicious else self._pace.quick_s
            if self._pace.hopeless(job.leash, typical_s / 2):
                raise deadline_passed()

    def _put_back(self, job: Job, *, suspicious: bool = True) -> None:
        """To be done anew, from its beginning, when its turn comes: a suspect's in its own lane."""
        job.suspicious, job.took_s = suspicious, 0.0
        with self._floor.changed:
            if self._floor.open and not job.future.done():
                self._floor.waiting.put(job)
                return
        self._calls.settle(job, error=self._closing())

    def _turn(self, job: Job) -> None:
        """Between two pieces of a job's work: puts it back, or lets others pass."""
        floor = self._floor
        if not job.suspicious:
            with floor.changed:
                alone = floor.alone
            if not alone:
                raise Suspended
            self._end_first_look(job)
            return
        with floor.changed:
            floor.charge(job)
        while (quick := floor.next_quick()) is not None:
            # The job itself touches no model now, so that one may hang without harm to it.
            with off_device():
                self.do(quick)
            job.charged_s = time.monotonic()
            job.leash.alive_monotonic_s = job.charged_s

    def _end_first_look(self, job: Job) -> None:
        """Nobody waits, so that the job need not be put back to go on."""
        with self._floor.changed:
            self._floor.charge(job)
            self._pace.took(job.spent_s(), suspicious=False)
            job.suspicious = True
        job.began_monotonic_s = time.monotonic()
