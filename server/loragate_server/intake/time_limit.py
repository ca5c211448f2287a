"""A limit on the processor time of a piece of pure Python, for loops that may not end."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_LOOK_EVERY_S = 0.02


class TimeLimitError(BaseException):
    """The limit was reached. Not an `Exception`, so that what is limited cannot swallow it."""


@contextmanager
def cpu_time_limit(seconds: float) -> Iterator[None]:
    """Ends what runs inside after so many seconds of this thread's processor time.

    Processor time, so that a busy machine does not make the limit shorter. It takes effect between
    two steps of Python; a single call into C is not cut short.

    Raises:
        TimeLimitError: the limit was reached.
    """
    guard = _Guard(threading.get_ident(), seconds)
    guard.start()
    try:
        yield
    finally:
        guard.finish()


class _Guard(threading.Thread):
    """Watches one thread's clock and raises in it when its time is up."""

    def __init__(self, watched: int, seconds: float) -> None:
        super().__init__(name="time-limit", daemon=True)
        self._watched = watched
        self._clock = time.pthread_getcpuclockid(watched)
        self._until_s = time.clock_gettime(self._clock) + seconds
        self._lock = threading.Lock()
        self._done = threading.Event()

    def run(self) -> None:
        while not self._done.wait(_LOOK_EVERY_S):
            with self._lock:
                if self._done.is_set():
                    return
                if time.clock_gettime(self._clock) >= self._until_s:
                    _raise_in(self._watched, ctypes.py_object(TimeLimitError))
                    return

    def finish(self) -> None:
        """Nothing is raised after this, not even what was on its way."""
        with self._lock:
            self._done.set()
            _raise_in(self._watched, None)


def _raise_in(thread: int, error: ctypes.py_object[type[BaseException]] | None) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), error)
