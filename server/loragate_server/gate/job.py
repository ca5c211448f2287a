"""`Job`: a piece of work for the worker's thread, and whether another thread may follow it."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass, field
from typing import Any

from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.progress import Leash

_RUNNING: ContextVar[Job | None] = ContextVar("running_job", default=None)


@dataclass(frozen=True)
class Sharing:
    """How a piece of work begins together with others of its kind.

    Attributes:
        alike: what may begin together is equal in this.
        size_bytes: of its files, which are in memory meanwhile.
        prepare: the part that each does for itself.
        finish: the rest, of several that are prepared; None for each that takes long, which is
            then done from its beginning, alone.
        ready: whether it may begin with others now.
    """

    alike: Hashable
    size_bytes: int
    prepare: Callable[[], Any]
    finish: Callable[[Sequence[Any]], Sequence[Any]]
    ready: Callable[[], bool] = lambda: True


@dataclass(eq=False)
class Job:
    """A piece of work, who waits for it, and how it fares.

    Work counts as using the device, unless it says by `off_device` that it does not: a thread that
    hangs in a forward pass may have left hooks on the model, and the next audit must not run with
    them.

    Attributes:
        background: whether it is a piece of the server's own work, that nobody's load waits for.
        caller: whose work it is; each has an equal share of the worker.
        begun: called when the work begins.
        suspicious: whether a first look was not enough, so that it takes long.
        charged_s: monotonic time up to which its caller has been charged for it.
        sharing: how it begins together with others; None for work that is always done alone.
        took_s: its part of what was done together with others.
    """

    work: Callable[[], Any]
    leash: Leash
    future: asyncio.Future[Any]
    background: bool = False
    caller: str = ""
    begun: Callable[[], None] = lambda: None
    suspicious: bool = False
    charged_s: float = 0.0
    sharing: Sharing | None = None
    took_s: float = 0.0
    context: Context = field(default_factory=copy_context)
    enqueued_monotonic_s: float = field(default_factory=time.monotonic)
    began_monotonic_s: float = 0.0
    _heard_monotonic_s: float = -math.inf
    """As if it had given a sign of life then; the thread that watches sets it."""
    _off_device: bool = False
    _given_up: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self) -> Any:
        """Does the work, in the context of whoever asked for it."""
        return self.context.run(self._run, self.work)

    def prepare(self) -> Any:
        """Does its own part of work that begins together with other work, as `run`."""
        assert self.sharing is not None  # noqa: S101 - nobody else asks
        began_s = time.monotonic()
        try:
            return self.context.run(self._run, self.sharing.prepare)
        finally:
            self.took_s = time.monotonic() - began_s

    def spent_s(self) -> float:
        """What the work took since it began, or its part of what was done together."""
        return self.took_s or time.monotonic() - self.began_monotonic_s

    def silent_s(self) -> float:
        """Seconds since the work began, polled its leash or reported progress."""
        return time.monotonic() - max(
            self.began_monotonic_s, self.leash.alive_monotonic_s, self._heard_monotonic_s
        )

    def excuse(self, seconds: float) -> None:
        """Does not count so much of its silence, through which the whole process stood still."""
        now_s = time.monotonic()
        self._heard_monotonic_s = min(now_s - self.silent_s() + seconds, now_s)

    def give_up(self) -> bool:
        """Gives the work up; whatever it still does, it does not come to the device again.

        Returns:
            Whether it is off the device, so that another thread may use that.
        """
        with self._lock:
            self._given_up = True
            return self._off_device

    def leave_device(self) -> None:
        """From now on the work touches no model."""
        with self._lock:
            self._off_device = True

    def enter_device(self) -> None:
        """From now on the work may touch a model.

        Raises:
            NoDecisionError: AUDIT_FAILED; it has been given up, and another thread may be there.
        """
        with self._lock:
            if self._given_up:
                raise given_up()
            self._off_device = False

    def _run(self, work: Callable[[], Any]) -> Any:
        told = _RUNNING.set(self)
        try:
            return work()
        finally:
            _RUNNING.reset(told)  # else job and context would hold each other, and what was read


class Suspended(BaseException):
    """Ends the first look at a suspect: others come first, and then all of it is done anew."""


@contextmanager
def off_device() -> Iterator[None]:
    """Inside it, the running work touches no model: if it hangs there, another thread takes over.

    Raises:
        NoDecisionError: AUDIT_FAILED at the end, when another thread has taken over meanwhile.
    """
    job = _RUNNING.get()
    if job is None:
        yield
        return
    job.leave_device()
    try:
        yield
    finally:
        job.enter_device()


def given_up() -> NoDecisionError:
    """What those are told who wait for work that hangs."""
    return NoDecisionError(
        ErrorReason.AUDIT_FAILED,
        "The audit did not go on and was given up.",
        remedy="Do not load the adapter; tell the operator, whose log says where it hangs.",
    )
