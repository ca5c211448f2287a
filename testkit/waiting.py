"""Waiting for what has to come, for longer on a machine that is busy with other things."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

MOST_BUSY = 6.0
"""Beyond this the load says little: a container sees that of the whole machine around it beside
its own few processors, and a test that hangs would be waited for through hours."""


def busyness() -> float:
    """By how much longer things take now than on an idle machine; at least 1, at most MOST_BUSY."""
    return min(max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)), MOST_BUSY)


BESIDE_OTHERS = 4.0
"""What the load of the last minute does not show: a pause of the collector, of the disk or of the
machine under this one. A test that looks for seconds where hours are the fault can afford it."""


def at_most(seconds: float) -> float:
    """The limit of what takes at most so many seconds on an idle machine, on this one, now."""
    return seconds * BESIDE_OTHERS * busyness()


def eventually(holds: Callable[[], bool], limit_s: float, *, every_s: float = 0.1) -> bool:
    """Whether something comes to hold within so many seconds of an idle machine."""
    began = time.monotonic()
    while not holds():
        if time.monotonic() - began > limit_s * busyness():
            return holds()
        time.sleep(every_s)
    return True
