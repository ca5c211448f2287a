"""`Doorway`: what is inside of the gate, whether more may come in, and what failed there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager

from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.gate.faults import audit_failed
from loragate_server.gate.observer import GateObserver
from loragate_server.gate.worker import draining
from loragate_server.progress import Leash
from loragate_server.record.verdict import Verdict

_log = logging.getLogger(__name__)


class Doorway:
    """Every question comes in and goes out through it. Belongs to one event loop.

    Attributes:
        closed: whether new questions are refused.
    """

    def __init__(self, observer: GateObserver) -> None:
        self.closed = False
        self._observer = observer
        self._inside = 0
        self._empty = asyncio.Event()
        self._empty.set()

    def require_open(self) -> None:
        """Refuses a new question of a server that stops.

        Raises:
            NoDecisionError: DRAINING.
        """
        if self.closed:
            raise draining()

    async def answer(self, work: Awaitable[Verdict], leash: Leash) -> Verdict:
        """What comes of a question that is inside meanwhile.

        Raises:
            NoDecisionError: whatever went wrong; it is counted.
        """
        try:
            with self.inside():
                verdict = await work
        except asyncio.CancelledError:
            # Whatever thread still works for this caller polls the leash.
            leash.cancel()
            raise
        self._observer.decision(verdict)
        return verdict

    async def drain(self, timeout_s: float) -> bool:
        """Refuses new questions and waits for those inside, at most `timeout_s`.

        Returns:
            Whether nothing is inside any more.
        """
        self.closed = True
        try:
            async with asyncio.timeout(timeout_s):
                # Again and again: an upload's question follows when the upload has ended.
                while self._inside:
                    await self._empty.wait()
        except TimeoutError:
            _log.warning("%d questions were still in flight after the grace time", self._inside)
        return self._inside == 0

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Lets `drain` wait for what is inside, and counts what fails there."""
        self._inside += 1
        self._empty.clear()
        try:
            with self.counted():
                yield
        finally:
            self._inside -= 1
            if self._inside == 0:
                self._empty.set()

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Turns whatever is raised inside into a counted `NoDecisionError`."""
        try:
            yield
        except NoDecisionError as error:
            self._observer.failure(error.reason)
            raise
        except asyncio.CancelledError:
            self._observer.failure(ErrorReason.CANCELLED)
            raise
        except Exception as error:
            failed = audit_failed(error)
            self._observer.failure(failed.reason)
            raise failed from None
