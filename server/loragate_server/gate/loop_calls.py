"""`LoopCalls`: from a thread back to the event loop that waits for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from loragate_server.errors import NoDecisionError
from loragate_server.gate.job import Job

_log = logging.getLogger(__name__)


class LoopCalls:
    """Calls functions on an event loop, from any thread.

    Attributes:
        loop: nobody is called where there is none yet.
    """

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None

    def call(self, function: Callable[..., None], *arguments: object) -> None:
        """Calls a function on the event loop; nobody waits where it has ended."""
        if self.loop is None:
            return
        try:
            self.loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            _log.warning("an audit ended after the event loop that waited for it")

    def settle(
        self, job: Job, *, result: object = None, error: NoDecisionError | None = None
    ) -> None:
        """Tells who waits for a job how it ended; does nothing where that was told."""

        def settle() -> None:
            if job.future.done():
                return
            if error is None:
                job.future.set_result(result)
            else:
                job.future.set_exception(error)

        self.call(settle)
