"""Loads the base models while probes are answered, until it is done or the server has to stop."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable

from loragate_server.app.startup import serve_bases
from loragate_server.concepts.library import ConceptLibrary
from loragate_server.config.schema import Config
from loragate_server.gate.bases import ServedBase
from loragate_server.progress import Report
from loragate_server.web.readiness import Readiness

_log = logging.getLogger(__name__)

SAY_EVERY_S = 10.0
"""A first start builds probes for a minute and more; silence would look like a hang."""


_MINUTE_S, _HOUR_S = 60, 3600


class StoppedWhileStarting(Exception):  # noqa: N818 - it is no error
    """The signal came while models were loaded."""


def progress_lines(clock: Callable[[], float] = time.monotonic) -> Report:
    """Logs each stage when it begins, and its share and what is left of it while it lasts."""
    current, said_s, pace = "", 0.0, Pace(clock)

    def report(stage: str, fraction: float) -> None:
        nonlocal current, said_s
        now_s = clock()
        left = pace.left(stage, fraction)
        if stage != current:
            _log.info("%s", stage)
        elif now_s - said_s >= SAY_EVERY_S:
            _log.info("%s, %.0f %%%s", stage, 100 * fraction, left)
        else:
            return
        current, said_s = stage, now_s

    return report


class Pace:
    """Tells how long a stage will go on, from how far it came since it was first heard of."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._stage = ""
        self._began_s = 0.0
        self._first = 0.0

    def left(self, stage: str, fraction: float) -> str:
        """As words that follow a share: ", about 12 min left"; nothing where it is not known."""
        if stage != self._stage or fraction < self._first:
            self._stage, self._began_s, self._first = stage, self._clock(), fraction
        done = fraction - self._first
        took_s = self._clock() - self._began_s
        if done <= 0 or fraction >= 1:
            return ""
        left_s = took_s * (1 - fraction) / done
        if left_s < _MINUTE_S:
            return f", about {left_s:.0f} s left"
        if left_s < _HOUR_S:
            return f", about {left_s / _MINUTE_S:.0f} min left"
        return f", about {left_s / _HOUR_S:.1f} h left"


async def load_models(
    config: Config, library: ConceptLibrary, readiness: Readiness, stop_asked: asyncio.Event
) -> tuple[ServedBase, ...]:
    """Loads the models on a thread of its own, until it is done or the server is told to stop."""
    given_up = threading.Event()
    say, pace = progress_lines(), Pace()

    def report(stage: str, fraction: float) -> None:
        if given_up.is_set():
            raise StoppedWhileStarting
        say(stage, fraction)
        readiness.set("models", f"{stage}, {fraction:.0%}{pace.left(stage, fraction)}")

    work = asyncio.create_task(asyncio.to_thread(serve_bases, config, library, report))
    stop = asyncio.create_task(stop_asked.wait())
    try:
        await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
        if stop.done():
            given_up.set()
        served = await work
    finally:
        given_up.set()
        stop.cancel()
    readiness.set("models")
    return served
