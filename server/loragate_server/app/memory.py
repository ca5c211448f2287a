"""How the process keeps its memory small, and out of the way of calls."""

from __future__ import annotations

import asyncio
import ctypes
import gc
from collections.abc import Callable

THRESHOLDS = (5_000, 20, 10)
"""Objects made until the youngest are looked through, and how often that is done before older ones
are. A question that waits makes thousands and lives for seconds: with Python's 700 and 10 it would
count among the old ones that are looked through all together, in the middle of another's answer."""

TRIM_EVERY_S = 10.0


def settle() -> None:
    """Called when everything is loaded: models, library and modules stay, and are not looked at."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)


async def keep_trimmed(every_s: float = TRIM_EVERY_S) -> None:
    """Gives free memory back to the system, again and again, until it is cancelled.

    What lies between an upload's buffer and the next is remembered for a thousand audits, so that
    the C library can neither use the buffer's place for one of the next uploads nor shrink its
    heap: of each upload that is remembered its size would stay.
    """
    trim = _trim()
    while trim is not None:
        await asyncio.sleep(every_s)
        await asyncio.to_thread(trim, 0)  # some milliseconds, without the interpreter's lock


def _trim() -> Callable[[int], int] | None:
    """glibc's `malloc_trim`; other C libraries have none, and need none."""
    try:
        found: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None
    return found
