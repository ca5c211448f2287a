"""`Follower`: keeps what a table says in memory, and reads it again on a thread of its own."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod

from loragate_server.errors import NoDecisionError

POLL_INTERVAL_S = 1.0

_LOGGER = logging.getLogger(__name__)


class Follower(ABC):
    """Calls `refresh` until it is stopped; a failure is logged once and ends nothing.

    Args:
        what: for the log and as the name of the thread, for example "reviews".
        interval_s: seconds between two calls.
    """

    def __init__(self, what: str, interval_s: float) -> None:
        self._what = what
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @abstractmethod
    def refresh(self) -> None:
        """Reads what is new.

        Raises:
            NoDecisionError: DATABASE_UNAVAILABLE.
        """

    def start(self) -> None:
        """Reads now, and keeps reading on a thread of its own until `stop`.

        Raises:
            NoDecisionError: DATABASE_UNAVAILABLE.
        """
        self.refresh()
        self._thread = threading.Thread(target=self._follow, name=self._what, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread. Safe to call twice."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _follow(self) -> None:
        failing = False
        while not self._stop.wait(self._interval_s):
            try:
                self.refresh()
                failing = False
            except NoDecisionError as error:
                if not failing:
                    _LOGGER.warning("%s cannot be read: %s", self._what, error)
                failing = True
            except Exception:
                # An unreadable row must not end the thread; approvals then lapse in time.
                if not failing:
                    _LOGGER.exception("%s cannot be read", self._what)
                failing = True
