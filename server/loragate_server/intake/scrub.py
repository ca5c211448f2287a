"""`Scrubber`: looks for stored files that somebody changed, now and then, in the background."""

from __future__ import annotations

import contextlib
import logging
import os
import threading

from loragate_server.intake.store import ContentStore

_log = logging.getLogger(__name__)

_PAUSE_S = 1 / 64
"""After each MiB: a store of 20 GiB takes five minutes, and the disk is left to the audits."""
_LOWEST_PRIORITY = 19


class Scrubber:
    """Reads all that a store holds at the start and then once in a period, until it is closed."""

    def __init__(self, store: ContentStore, interval_s: float) -> None:
        self._store = store
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="scrub", daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def close(self) -> None:
        """Ends soon; does not wait for it."""
        self._stop.set()

    def _work(self) -> None:
        with contextlib.suppress(OSError):  # on Linux the priority of this thread alone
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST_PRIORITY)
        while True:
            try:
                self._store.scrub(self._pause)
            except _ClosedError:
                return
            except OSError as error:
                _log.error("the store cannot be looked through: %s", error)
            if self._stop.wait(self._interval_s):
                return

    def _pause(self) -> None:
        if self._stop.wait(_PAUSE_S):
            raise _ClosedError


class _ClosedError(Exception):
    """The server ends."""
