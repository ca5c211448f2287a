"""Loads the base models while probes are answered, until it is done or the server has to stop."""

from __future__ import annotations

import asyncio
import logging
import threading

from loragate_server.app.startup import serve_bases
from loragate_server.concepts.library import ConceptLibrary
from loragate_server.config.schema import Config
from loragate_server.gate.bases import ServedBase
from loragate_server.web.readiness import Readiness

_log = logging.getLogger(__name__)


class StoppedWhileStarting(Exception):  # noqa: N818 - it is no error
    """The signal came while models were loaded."""


async def load_models(
    config: Config, library: ConceptLibrary, readiness: Readiness, stop_asked: asyncio.Event
) -> tuple[ServedBase, ...]:
    """Loads the models on a thread of its own, until it is done or the server is told to stop."""
    given_up = threading.Event()
    loading = ""

    def report(stage: str, fraction: float) -> None:
        nonlocal loading
        if given_up.is_set():
            raise StoppedWhileStarting
        if stage != loading:
            loading = stage
            _log.info("%s", stage)
        readiness.set("models", f"{stage}, {fraction:.0%}")

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
