"""`Readiness`: whether the server may be sent requests, and which part says no."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future

from loragate_server.threads import DaemonPool

Check = Callable[[], None]
"""Blocking; raises with a sentence when its part does not work now."""

_OK = "ok"
_CHECK_TIMEOUT_S = 2.0
_CHECK_EVERY_S = 1.0


class Readiness:
    """Parts that have to be ready once, and checks that have to hold on every question.

    Used from one event loop; `set` is safe from any thread.
    """

    def __init__(self, parts: Iterable[str]) -> None:
        self._parts = dict.fromkeys(parts, "not begun")
        self._checks: dict[str, _Asked] = {}
        self._notes: Callable[[], Mapping[str, str]] = dict
        self._draining = False
        self._checked_at = float("-inf")
        self._checked: dict[str, str] = {}
        self._checking = asyncio.Lock()

    def set(self, part: str, state: str = _OK) -> None:
        """Says how far `part` is; "ok" when it is ready."""
        self._parts[part] = state

    def add_check(self, part: str, check: Check) -> None:
        """Asks `check` whenever readiness is asked, once a second at most.

        One that hangs counts as failed, keeps one thread of its own, and is not asked again until
        it has ended.
        """
        self._checks[part] = _Asked(part, check)

    def follow_notes(self, notes: Callable[[], Mapping[str, str]]) -> None:
        """Has `notes` asked for what one should know of a server that is ready nevertheless.

        It is called on the event loop and must not block.
        """
        self._notes = notes

    @property
    def notes(self) -> dict[str, str]:
        """What one should know, by what it is about; "ok" where that is nothing."""
        return dict(self._notes())

    def drain(self) -> None:
        """Not ready from now on."""
        self._draining = True

    @property
    def begun(self) -> bool:
        """Whether every part has been ready; says nothing of the checks."""
        return not self._draining and all(state == _OK for state in self._parts.values())

    async def report(self) -> tuple[bool, dict[str, str]]:
        """Whether all is ready, and the state of every part."""
        parts = {**self._parts, **await self._run_checks()}
        if self._draining:
            parts["server"] = "draining"
        return all(state == _OK for state in parts.values()), parts

    async def _run_checks(self) -> dict[str, str]:
        # One run serves all who ask meanwhile: probes of many kinds must not load the database.
        async with self._checking:
            if time.monotonic() - self._checked_at >= _CHECK_EVERY_S:
                states = await asyncio.gather(*(asked.outcome() for asked in self._checks.values()))
                self._checked = dict(zip(self._checks, states, strict=True))
                self._checked_at = time.monotonic()
            return self._checked


class _Asked:
    """A check on a thread of its own, which runs once at a time."""

    def __init__(self, part: str, check: Check) -> None:
        self._check = check
        self._pool = DaemonPool(1, f"check-{part}")
        self._running: Future[None] | None = None
        self._began_s = 0.0

    async def outcome(self) -> str:
        """What the check says now, at most `_CHECK_TIMEOUT_S` after it began."""
        running = self._running
        if running is None or running.done():
            self._began_s = time.monotonic()
            running = self._running = self._pool.submit(self._check)
        left_s = self._began_s + _CHECK_TIMEOUT_S - time.monotonic()
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        running.add_done_callback(lambda _: _tell(loop, ended))
        try:
            async with asyncio.timeout(max(0.0, left_s)):
                await ended.wait()
        except TimeoutError:
            return f"no answer in {_CHECK_TIMEOUT_S:g} s"
        error = running.exception()
        if error is not None:  # a check may fail in any way; each means not ready
            return str(error) or type(error).__name__
        return _OK


def _tell(loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended before the check
        loop.call_soon_threadsafe(ended.set)
