"""Single flight: equal requests that run at the same time share one audit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.progress import Leash, deadline_passed
from loragate_server.tracing.tracer import CURRENT, Span, inside, start

Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")

_GONE = frozenset({ErrorReason.CANCELLED, ErrorReason.DEADLINE_EXCEEDED})


class SharedLeash(Leash):
    """Holds as long as one of the waiting callers' leashes holds; takes the latest deadline."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting: tuple[Leash, ...] = ()

    @property
    def waiting(self) -> int:
        """How many callers wait."""
        return len(self._waiting)

    def join(self, leash: Leash) -> None:
        """Adds a caller. Call from the event loop."""
        self._waiting = (*self._waiting, leash)
        self._take_deadline()

    def leave(self, leash: Leash) -> None:
        """Removes a caller. Call from the event loop."""
        self._waiting = tuple(other for other in self._waiting if other is not leash)
        if self._waiting:
            self._take_deadline()
        else:
            self.cancel()

    def check(self) -> None:
        """As `Leash.check`; raises only when no caller is left to answer."""
        self.alive_monotonic_s = time.monotonic()
        failure: NoDecisionError | None = None
        for leash in self._waiting:
            try:
                leash.check()
            except NoDecisionError as error:
                failure = error
            else:
                return
        if failure is not None:
            raise failure
        super().check()

    def _take_deadline(self) -> None:
        deadlines = [leash.deadline_monotonic_s for leash in self._waiting]
        known = [deadline for deadline in deadlines if deadline is not None]
        self.deadline_monotonic_s = max(known) if len(known) == len(deadlines) else None

    def report(self, stage: str, fraction: float) -> None:
        """Tells all who wait."""
        self.alive_monotonic_s = time.monotonic()
        for leash in self._waiting:
            leash.report(stage, fraction)


class _Flight(Generic[Result]):
    def __init__(self, work: Callable[[SharedLeash], Awaitable[Result]], first: Leash) -> None:
        self.leash = SharedLeash()
        self.leash.join(first)
        self.span = start("audit")
        self.task: asyncio.Task[Result] = asyncio.ensure_future(_run(work, self.leash, self.span))


async def _run(
    work: Callable[[SharedLeash], Awaitable[Result]], leash: SharedLeash, span: Span | None
) -> Result:
    with inside(span):
        return await work(leash)


class SingleFlight(Generic[Key, Result]):
    """Runs work once per key at a time, whoever asks. Used from one event loop only."""

    def __init__(self, on_shared: Callable[[], None] = lambda: None) -> None:
        self._flights: dict[Key, _Flight[Result]] = {}
        self._on_shared = on_shared

    def __len__(self) -> int:
        return len(self._flights)

    def __contains__(self, key: Key) -> bool:
        return key in self._flights

    async def run(
        self, key: Key, work: Callable[[SharedLeash], Awaitable[Result]], leash: Leash
    ) -> Result:
        """The result of `work`, run now or already running for the same key.

        A caller that is cancelled, or whose deadline passes, leaves at once; the work goes on for
        the others and is cancelled when the last one has left.

        Raises:
            NoDecisionError: CANCELLED or DEADLINE_EXCEEDED by the caller's own leash, or whatever
                `work` raises.
        """
        while True:
            leash.check()
            joined = key in self._flights
            flight = self._join(key, work, leash)
            try:
                return await _result(flight.task, leash)
            except NoDecisionError as error:
                leash.check()
                # A flight may have given up a moment before this caller joined it: start a new one.
                if not joined or error.reason not in _GONE:
                    raise
            finally:
                self._leave(key, flight, leash)
                del flight  # else the error that it ended with would hold it

    def _join(
        self, key: Key, work: Callable[[SharedLeash], Awaitable[Result]], leash: Leash
    ) -> _Flight[Result]:
        flight = self._flights.get(key)
        if flight is not None:
            flight.leash.join(leash)
            self._on_shared()
            own = CURRENT.get()
            if own is not None and flight.span is not None:
                own.link(flight.span)
            return flight
        flight = _Flight(work, leash)
        self._flights[key] = flight
        flight.task.add_done_callback(lambda _: self._forget(key, flight))
        return flight

    def _leave(self, key: Key, flight: _Flight[Result], leash: Leash) -> None:
        flight.leash.leave(leash)
        if flight.leash.waiting == 0 and not flight.task.done():
            self._forget(key, flight)
            flight.task.cancel()

    def _forget(self, key: Key, flight: _Flight[Result]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
        if flight.task.done() and not flight.task.cancelled():
            flight.task.exception()  # marks it as seen; every waiter had it raised


async def _result(task: asyncio.Task[Result], leash: Leash) -> Result:
    """What comes of the task, waited for at most until the leash's deadline."""
    timeout_s = (
        None
        if leash.deadline_monotonic_s is None
        else max(0.0, leash.deadline_monotonic_s - time.monotonic())
    )
    done, _ = await asyncio.wait({task}, timeout=timeout_s)
    try:
        if not done:
            raise deadline_passed()
        return task.result()
    except asyncio.CancelledError:
        raise NoDecisionError(
            ErrorReason.CANCELLED,
            "The audit was stopped.",
            remedy="Ask again.",
        ) from None
    finally:
        del task, done  # else its error would hold this frame, and this frame the error
