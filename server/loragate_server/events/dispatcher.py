"""`Dispatcher`: a thread with an event loop of its own, on which couriers bring events away.

Not the loop that answers callers: whatever receivers do, no decision waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime

from loragate_server.config.events import EventsSection
from loragate_server.errors import NoDecisionError
from loragate_server.events.calibration import CalibrationWatch
from loragate_server.events.courier import Courier
from loragate_server.events.observer import EventObserver
from loragate_server.events.sending import Sender
from loragate_server.record.database import Database
from loragate_server.threads import DaemonPool

TROUBLE_S = 5.0
"""Between two attempts to use a database that is away."""
WATCH_S = 2.0
"""Between two looks at the calibrations, which ask nobody while nothing has changed."""
CLOSE_LIMIT_S = 2.0
"""For the attempts that run. What is cut off is repeated when its lease has run out."""

_DATABASE_THREADS = 2
"""So many connections at most are not there for decisions."""

_log = logging.getLogger(__name__)


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Dispatcher:
    """Sends what is written for its receivers, by whichever replica, until it is closed."""

    def __init__(
        self,
        settings: EventsSection,
        database: Database,
        observer: EventObserver,
        watch: CalibrationWatch,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._settings = settings
        self._database = database
        self._observer = observer
        self._watch = watch
        self._now = now
        self._loop = asyncio.new_event_loop()
        self._ending = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def close(self) -> None:
        """Ends after the attempts that run, or cuts them off. Blocks for a few seconds at most."""
        with contextlib.suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join(CLOSE_LIMIT_S + 1.0)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._work())
        except Exception:  # decisions go on, and the age of what waits tells of it as well
            _log.exception("events: nothing is sent any more; start the server again")
        finally:
            self._loop.close()

    async def _work(self) -> None:
        pool = DaemonPool(_DATABASE_THREADS, "events-record")
        async with AsyncExitStack() as stack:
            stack.callback(pool.shutdown, cancel_futures=True)
            tasks = [asyncio.create_task(self._repeat("calibration", self._look(pool)))]
            for one in self._settings.receivers:
                sender = await stack.enter_async_context(Sender(one))
                courier = Courier(one, sender, self._database, pool, self._observer, self._now)
                tasks.append(asyncio.create_task(self._repeat(one.name, courier.step)))
            await self._ending.wait()
            _, late = await asyncio.wait(tasks, timeout=CLOSE_LIMIT_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _look(self, pool: DaemonPool) -> Callable[[], Awaitable[float]]:
        async def look() -> float:
            await self._loop.run_in_executor(pool, self._watch.look)
            return WATCH_S

        return look

    async def _repeat(self, what: str, step: Callable[[], Awaitable[float]]) -> None:
        """Takes one step after the other; a failure is logged once and ends nothing."""
        failing = False
        while not self._ending.is_set():
            try:
                wait_s = await step()
                failing = False
            except Exception as error:  # a row that nobody can read must not end it either
                if not failing:
                    known = isinstance(error, NoDecisionError)
                    _log.warning("events: %s: %s", what, error, exc_info=not known)
                failing, wait_s = True, TROUBLE_S
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), wait_s)
