"""Ends a process whose audit hangs, so that its files are audited elsewhere, one by one."""

from __future__ import annotations

import faulthandler
import time
from collections.abc import Iterator
from contextlib import contextmanager

from loragate_server.progress import Leash

_ARM_EVERY_S = 1.0


class Guard(Leash):
    """A leash whose process ends when it is polled no more for `stuck_after_s`.

    Where the interpreter hangs in a library, no code of ours would run: `faulthandler` waits in a
    thread of its own, without the interpreter's lock, and writes to the log where it hung.
    """

    def __init__(self, stuck_after_s: float) -> None:
        super().__init__()
        self._stuck_after_s = stuck_after_s
        self._armed_s = 0.0

    @contextmanager
    def on(self) -> Iterator[None]:
        """Guards what is done inside."""
        self._arm()
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()

    def check(self) -> None:
        """As `Leash.check`; a sign of life."""
        super().check()
        if time.monotonic() - self._armed_s >= min(_ARM_EVERY_S, self._stuck_after_s / 4):
            self._arm()

    def _arm(self) -> None:
        self._armed_s = time.monotonic()
        faulthandler.dump_traceback_later(self._stuck_after_s, exit=True)
