"""`DaemonPool`: threads for work that may never end."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class DaemonPool(Executor):
    """A pool of a few threads that do not keep the process alive. Thread-safe.

    The interpreter waits at its end for the threads of a `ThreadPoolExecutor`, and so for a read
    from a file system that has gone, for ever.

    All threads are there from the start: one that is started when no memory is left may die before
    it says that it lives, and whoever starts it then waits for ever.
    """

    def __init__(self, threads: int, name: str) -> None:
        if threads < 1:
            raise ValueError(f"a pool needs at least one thread, not {threads}")
        self._limit = threads
        self._name = name
        self._waiting: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._began_s: dict[int, float] = {}
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}_{number}", daemon=True)
            for number in range(1, threads + 1)
        ]
        for thread in self._threads:
            thread.start()

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
            self._changed.notify()
        return future

    def busy_s(self) -> float:
        """Seconds since when no thread has been free; 0 while one is."""
        with self._changed:
            if len(self._began_s) < self._limit:
                return 0.0
            return time.monotonic() - max(self._began_s.values())

    @property
    def alive(self) -> int:
        """How many of its threads have not ended."""
        return sum(thread.is_alive() for thread in self._threads)

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
        while True:
            with suppress(MemoryError):  # a shortage passes; a thread that ended does not return
                return self._serve()

    def _serve(self) -> None:
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
            while not self._waiting and not self._closed:
                self._changed.wait()
            if not self._waiting:
                return None
            self._began_s[own] = time.monotonic()
            return self._waiting.popleft()


def _settle(future: Future[Any], work: Callable[[], Any]) -> None:
    try:
        result = work()
    except BaseException as error:  # whoever waits for the future gets it
        future.set_exception(error)
        del future, work  # else the error would hold this frame, and this frame the error
    else:
        future.set_result(result)
