"""`Floor`: what waits for the thread that audits, and what that thread has in hand."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

from loragate_server.gate.job import Job
from loragate_server.gate.queue import FairQueue

MOST_TOGETHER = 8
"""Pieces of work that begin together at most: with 8 a screen costs two fifths, with 32 not much
less, and whoever comes next waits for all of them."""

TOGETHER_BYTES = 256 << 20
"""Of their files: what was read is in memory until the last of them has been."""


class Floor:
    """The work of one thread at a time, under one lock, which `changed` is.

    Attributes:
        changed: held by whoever looks or changes; notified when there is work, or the end.
        waiting: work whose turn has not come.
        running: work in hand. The last is at work; those before it let it pass.
        company: work that began together with the last, and waits for it or has been prepared.
        closed: nothing more begins.
        broken: nothing more begins, for the model may be in any state.
        lost: threads that were given up; what they still do is of no account.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.waiting = FairQueue()
        self.running: list[Job] = []
        self.company: list[Job] = []
        self.closed = False
        self.broken = False
        self.lost: list[threading.Thread] = []

    @property
    def is_mine(self) -> bool:
        """Whether the thread that asks is the one whose work this is."""
        return threading.current_thread() not in self.lost

    @property
    def open(self) -> bool:
        """Whether the thread that asks may begin more."""
        return self.is_mine and not self.closed and not self.broken

    @property
    def alone(self) -> bool:
        """Whether there is one piece of work, and nothing else."""
        return len(self.running) == 1 and not self.company and not len(self.waiting)

    def next(self) -> Job | None:
        """Waits for the next piece of work; None when the thread is to end."""
        with self.changed:
            while not self.waiting and self.open:
                self.changed.wait()
            return self._begin(self.waiting.pop()) if self.open else None

    def next_quick(self) -> Job | None:
        """Work that passes what the thread is at, if there is any."""
        with self.changed:
            job = self.waiting.pop_before_slow() if self.open else None
            return None if job is None else self._begin(job)

    def together_with(self, job: Job, each_s: float) -> list[Job]:
        """What begins together with work that has just begun, itself first; else it alone.

        All of them are in `company` then, and none is at work.

        Args:
            job: just begun.
            each_s: what one usually takes.
        """
        with self.changed:
            if not self.open:
                return [job]
            more = self.waiting.pop_alike(job, MOST_TOGETHER - 1, TOGETHER_BYTES, each_s)
            if more:
                for one in more:
                    one.begun()
                self.running.remove(job)
                self.company = [job, *more]
            return [job, *more]

    def take_up(self, job: Job) -> bool:
        """Puts one of the company to work; False where the thread may not go on."""
        with self.changed:
            if not self.open:
                return False
            self.company.remove(job)
            job.began_monotonic_s = job.charged_s = time.monotonic()
            self.running.append(job)
            return True

    def lay_down(self, job: Job) -> bool:
        """The work is prepared and waits for its company; False where the thread may not go on."""
        with self.changed:
            if not self.is_mine:
                return False
            self.charge(job)
            self._take_out(job)
            self.company.append(job)
            return True

    def take_up_all(self, jobs: Iterable[Job]) -> bool:
        """Puts what is prepared to work, all at once; False where the thread may not go on."""
        with self.changed:
            if not self.open:
                return False
            for job in jobs:
                job.began_monotonic_s = time.monotonic()  # it was silent while others prepared
                self.running.append(job)
            self.company = []
            return True

    def disperse(self) -> list[Job]:
        """Takes the company out, where it is this thread's to answer for."""
        with self.changed:
            if not self.is_mine:
                return []
            left, self.company = self.company, []
            return left

    def end(self, job: Job) -> None:
        """Takes a job down as done, unless it was given up and forgotten."""
        with self.changed:
            self.charge(job)
            if job in self.running:
                self._take_out(job)

    def charge(self, job: Job) -> None:
        """Takes down what a job has been worked at since it was charged last; hold the lock."""
        now_s = time.monotonic()
        self.waiting.charge(job, now_s - job.charged_s)
        job.charged_s = now_s

    def _take_out(self, job: Job) -> None:
        self.running.remove(job)
        if self.running:  # it let this one pass, and said nothing meanwhile
            self.running[-1].leash.alive_monotonic_s = time.monotonic()

    def _begin(self, job: Job) -> Job:
        job.took_s = 0.0
        job.began_monotonic_s = job.charged_s = time.monotonic()
        job.begun()
        self.running.append(job)
        return job
