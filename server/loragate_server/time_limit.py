"""A limit on the processor time of a piece of pure Python, for loops that may not end."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

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
    _watcher().add(guard)
    try:
        yield
    finally:
        try:
            guard.finish()
        finally:
            _watcher().remove(guard)


def watch_from_now_on() -> None:
    """Starts the thread that watches, if it does not run yet.

    A thread that is started when no memory is left may die before it says that it lives, and
    `Thread.start` then waits for ever. So a server calls this when it starts.
    """
    _watcher()


class _Guard:
    """One thread's clock, and when its time is up."""

    def __init__(self, watched: int, seconds: float) -> None:
        self._watched = watched
        self._clock = time.pthread_getcpuclockid(watched)
        self._until_s = time.clock_gettime(self._clock) + seconds
        self._lock = threading.Lock()
        self._done = False

    def look(self) -> None:
        """Raises in the watched thread when its time is up."""
        with self._lock:
            if not self._done and time.clock_gettime(self._clock) >= self._until_s:
                self._done = True
                _raise_in(self._watched, ctypes.py_object(TimeLimitError))

    def finish(self) -> None:
        """Nothing is raised after this, not even what was on its way."""
        with self._lock:
            late, self._done = self._done, True
        # A block that the limit left before it had ended is ended by whoever frees it, on whatever
        # thread: nothing is on its way there, and the one that was watched has other things to do.
        if late and threading.get_ident() == self._watched:
            _swallow(self._watched)


class _Watcher:
    """One thread for all guards of the process."""

    def __init__(self) -> None:
        self._guards: tuple[_Guard, ...] = ()
        self._changed = threading.Condition()
        threading.Thread(target=self._work, name="time-limit", daemon=True).start()

    def add(self, guard: _Guard) -> None:
        with self._changed:
            self._guards = (*self._guards, guard)
            self._changed.notify()

    def remove(self, guard: _Guard) -> None:
        with self._changed:
            self._guards = tuple(one for one in self._guards if one is not guard)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._guards:
                    self._changed.wait()
                guards = self._guards
            for guard in guards:
                guard.look()
            time.sleep(_LOOK_EVERY_S)


_one: list[_Watcher] = []
_starting = threading.Lock()


def _watcher() -> _Watcher:
    with _starting:
        if not _one:
            _one.append(_Watcher())
        return _one[0]


def _raise_in(thread: int, error: ctypes.py_object[type[BaseException]]) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), error)


def _swallow(this_thread: int) -> None:
    """Lets what may still be on its way arrive here, and nowhere later.

    It could be taken back instead, but then CPython 3.11 goes on looking for it for ever: every
    profiler, debugger and measure of coverage stands still from then on.
    """
    with suppress(TimeLimitError):
        _raise_in(this_thread, ctypes.py_object(TimeLimitError))
        while True:
            time.sleep(0)


os.register_at_fork(after_in_child=_one.clear)
