"""Open files of the process: connections must never use up those that the work itself needs."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

try:
    import resource
except ImportError:  # Windows, which sets no such limit
    resource = None  # type: ignore[assignment]

_log = logging.getLogger(__name__)

MOST_DESCRIPTORS = 65_536
"""More than all ports may hold together; some systems set no limit at all."""

LOG_EVERY_S = 10.0
"""The accept loop tries again many times a second while no file can be opened."""


def raise_descriptor_limit() -> int:
    """Takes as many open files as the system lets this process have, and says how many."""
    if resource is None:
        return MOST_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    if soft == resource.RLIM_INFINITY or soft >= most:
        return most if soft == resource.RLIM_INFINITY else soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most


def most_connections(wanted: int) -> int:
    """What one port may hold, so that both together leave a third of all files to the work."""
    if resource is None:
        return wanted
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if soft == resource.RLIM_INFINITY else max(1, soft // 3)
    if allowed < wanted:
        _log.warning(
            "a port holds %d connections instead of %d: the process may open %d files (ulimit -n)",
            *(allowed, wanted, soft),
        )
    return min(allowed, wanted)


class AcceptFailures:
    """Logs connections that could not be accepted in one line now and then, and all else as ever.

    asyncio reports each attempt with its stack, hundreds of times a second.
    """

    def __init__(self, every_s: float = LOG_EVERY_S) -> None:
        self._every_s = every_s
        self._next_s = 0.0
        self._unsaid = 0

    def install(self, loop: asyncio.AbstractEventLoop) -> None:
        """Handles what goes wrong in an event loop."""
        loop.set_exception_handler(self)

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Takes one report."""
        if "socket.accept()" not in context.get("message", ""):
            loop.default_exception_handler(context)
            return
        self._unsaid += 1
        now_s = time.monotonic()
        if now_s >= self._next_s:
            _log.error(
                "connections could not be accepted, %d times: %s",
                *(self._unsaid, context.get("exception")),
            )
            self._next_s, self._unsaid = now_s + self._every_s, 0
