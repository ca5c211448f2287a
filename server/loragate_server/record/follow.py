"""`Follower`: reads a table again and again on a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from loragate_server.errors import NoDecisionError

POLL_INTERVAL_S = 1.0

_LOGGER = logging.getLogger(__name__)


class Follower:
    """Calls `refresh` until it is stopped; a failure is logged once and ends nothing."""

    def __init__(
        self, refresh: Callable[[], None], what: str, interval_s: float = POLL_INTERVAL_S
    ) -> None:
        """Begins nothing yet.

        Args:
            refresh: reads what is new.
            what: for the log and as the name of the thread, for example "reviews".
            interval_s: seconds between two calls.
        """
        self._refresh = refresh
        self._what = what
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Refreshes now, and goes on until `stop`. Raises what the first refresh raises."""
        self._refresh()
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
                self._refresh()
                failing = False
            except NoDecisionError as error:
                if not failing:
                    _LOGGER.warning("%s cannot be read: %s", self._what, error)
                failing = True
            except Exception:
                # An unreadable row must not end the thread.
                if not failing:
                    _LOGGER.exception("%s cannot be read", self._what)
                failing = True
