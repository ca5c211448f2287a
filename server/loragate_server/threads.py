"""`DaemonPool`: threads for work that may never end."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class DaemonPool(Executor):
    """A pool of a few threads that do not keep the process alive. Thread-safe.

    The interpreter waits at its end for the threads of a `ThreadPoolExecutor`, and so for a read
    from a file system that has gone, for ever.
    """

    def __init__(self, threads: int, name: str) -> None:
        if threads < 1:
            raise ValueError(f"a pool needs at least one thread, not {threads}")
        self._limit = threads
        self._name = name
        self._waiting: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._changed = threading.Condition()
        self._threads = 0
        self._idle = 0
        self._closed = False
        self._began_s: dict[int, float] = {}

    def submit(
        self,
        fn: Callable[Parameters, Result],
        /,
        *args: Parameters.args,
        **kwargs: Parameters.kwargs,
    ) -> Future[Result]:
        """Runs `fn` on a thread as soon as one is free.

        Raises:
            RuntimeError: after `shutdown`.
        """
        future: Future[Result] = Future()
        with self._changed:
            if self._closed:
                raise RuntimeError(f"the pool {self._name!r} takes no more work")
            self._waiting.append((future, lambda: fn(*args, **kwargs)))
            if self._idle < len(self._waiting) and self._threads < self._limit:
                self._grow()
            self._changed.notify()
        return future

    def _grow(self) -> None:
        """One thread more; where the system has none to give, those that there are go on."""
        name = f"{self._name}_{self._threads + 1}"
        try:
            threading.Thread(target=self._work, name=name, daemon=True).start()
        except RuntimeError:
            if not self._threads:
                self._waiting.pop()
                raise
        else:
            self._threads += 1

    def busy_s(self) -> float:
        """Seconds since when no thread has been free; 0 while one is."""
        with self._changed:
            if len(self._began_s) < self._limit:
                return 0.0
            return time.monotonic() - max(self._began_s.values())

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Takes no more work. Never waits for what runs: it may not end.

        Args:
            wait: without effect.
            cancel_futures: whether work that has not begun is dropped.
        """
        with self._changed:
            self._closed = True
            dropped = list(self._waiting) if cancel_futures else []
            if cancel_futures:
                self._waiting.clear()
            self._changed.notify_all()
        for future, _ in dropped:
            future.cancel()

    def _work(self) -> None:
        while (taken := self._next()) is not None:
            future, work = taken
            if future.set_running_or_notify_cancel():
                _settle(future, work)
            # Else the thread would hold the last piece and its result until the next one comes.
            del taken, future, work

    def _next(self) -> tuple[Future[Any], Callable[[], Any]] | None:
        own = threading.get_ident()
        with self._changed:
            self._began_s.pop(own, None)
            self._idle += 1
            while not self._waiting and not self._closed:
                self._changed.wait()
            self._idle -= 1
            if not self._waiting:
                return None
            self._began_s[own] = time.monotonic()
            return self._waiting.popleft()


def _settle(future: Future[Any], work: Callable[[], Any]) -> None:
    try:
        result = work()
    except BaseException as error:  # whoever waits for the future gets it
        future.set_exception(error)
    else:
        future.set_result(result)
