"""How work reports progress and learns that nobody waits for it any more."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from loragate_server.errors import ErrorReason, NoDecisionError

Report = Callable[[str, float], None]
"""Called with a stage name and the share of it that is done, 0 to 1."""


def silent(stage: str, fraction: float) -> None:
    """A `Report` that nobody reads."""


_Result = TypeVar("_Result")


class Turns(Protocol):
    """Has a piece of work run when the base models are free. Others may come between two pieces."""

    def __call__(self, piece: Callable[[], _Result]) -> _Result:
        """Waits for a turn, runs the piece, and gives what it returns or raises."""


def at_once(piece: Callable[[], _Result]) -> _Result:
    """A `Turns` of whoever has the base models for himself."""
    return piece()


def go_on() -> None:
    """A turn of work that nobody else waits behind."""


class Leash:
    """Carries a caller's deadline and cancellation down into the work, which polls `check`.

    Args:
        deadline_monotonic_s: until when the caller waits; None for ever.
        report: told the progress of the work.

    Attributes:
        turn: called by work before its long part and between two pieces of that, where it touches
            no model; whoever runs it may do other work meanwhile.
        alive_monotonic_s: when the work last polled or reported; it hangs if that is long ago.
    """

    def __init__(self, deadline_monotonic_s: float | None = None, report: Report = silent) -> None:
        self.deadline_monotonic_s = deadline_monotonic_s
        self.turn: Callable[[], None] = go_on
        self.alive_monotonic_s = -math.inf
        self._told = report
        self._cancelled = False  # written once, by one thread: needs no lock

    def report(self, stage: str, fraction: float) -> None:
        """Tells the caller that a share of a stage is done, 0 to 1."""
        self.alive_monotonic_s = time.monotonic()
        self._told(stage, fraction)

    def cancel(self) -> None:
        """Tells the work that the caller has gone. Thread-safe."""
        self._cancelled = True

    def check(self) -> None:
        """Call between pieces of work.

        Raises:
            NoDecisionError: CANCELLED or DEADLINE_EXCEEDED.
        """
        self.alive_monotonic_s = time.monotonic()
        if self._cancelled:
            raise NoDecisionError(
                ErrorReason.CANCELLED,
                "The caller went away before the audit ended.",
                remedy="Ask again; finished parts are not kept.",
            )
        if self.deadline_monotonic_s is not None and time.monotonic() > self.deadline_monotonic_s:
            raise deadline_passed()


def deadline_passed(
    message: str = "The deadline passed before the audit ended.",
    remedy: str = "Ask again with a longer deadline.",
) -> NoDecisionError:
    """What a caller is told whose time was too short."""
    return NoDecisionError(ErrorReason.DEADLINE_EXCEEDED, message, remedy=remedy)
