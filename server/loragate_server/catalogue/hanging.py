"""Ends a process whose audit hangs, so that its files are audited elsewhere, one by one."""

from __future__ import annotations

import faulthandler
import time
from collections.abc import Iterator
from contextlib import contextmanager

from loragate_server.progress import Leash

_ARM_EVERY_S = 1.0


class Guard(Leash):
    """A leash whose process ends when it is polled and told no more for `stuck_after_s`.

    Where the interpreter hangs in a library, no code of ours would run: `faulthandler` waits in a
    thread of its own, without the interpreter's lock, and writes down where it hung.
    """

    def __init__(self, stuck_after_s: float) -> None:
        super().__init__()
        self._stuck_after_s = stuck_after_s
        self._armed_s = 0.0
        self._arm()

    def check(self) -> None:
        """As `Leash.check`; a sign of life."""
        super().check()
        self._live()

    def report(self, stage: str, fraction: float) -> None:
        """As `Leash.report`; a sign of life, too."""
        super().report(stage, fraction)
        self._live()

    def _live(self) -> None:
        if time.monotonic() - self._armed_s >= min(_ARM_EVERY_S, self._stuck_after_s / 4):
            self._arm()

    def _arm(self) -> None:
        self._armed_s = time.monotonic()
        faulthandler.dump_traceback_later(self._stuck_after_s, exit=True)


@contextmanager
def guarded(stuck_after_s: float) -> Iterator[Guard]:
    """Guards what is done inside. Python has one such timer for a process."""
    guard = Guard(stuck_after_s)
    try:
        yield guard
    finally:
        faulthandler.cancel_dump_traceback_later()
