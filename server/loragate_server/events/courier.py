"""`Courier`: brings a receiver what is due to it, one event at a time, oldest first.

Every receiver has a courier of its own on every replica, so that none waits for another. An event
that fails is put off, by more each time. So is the courier itself, by more with each failure in a
row: a receiver that is away is not shown everything that waits for it. But as soon as two attempts
have failed in a row, the events that were tried least come first: some that a receiver never takes
must not hold up the others.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from concurrent.futures import Executor
from datetime import datetime, timedelta
from typing import TypeVar

from sqlalchemy import Connection

from loragate_server.config.events import EventReceiver
from loragate_server.config.retention import span_of
from loragate_server.events.observer import EventObserver
from loragate_server.events.sending import Outcome, Sender
from loragate_server.record.database import Database
from loragate_server.record.outbox import rows
from loragate_server.record.outbox.rows import Claim

IDLE_S = 1.0
"""Between two looks at the database while nothing is due."""
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 300.0
LEASE_MARGIN_S = 10.0
"""Beyond the time of an attempt, for the database and for clocks that differ."""

Result = TypeVar("Result")

_log = logging.getLogger(__name__)


def pause_s(failures: int) -> float:
    """Seconds to wait after so many failures in a row (from 1); random, to part replicas."""
    whole = min(FIRST_PAUSE_S * 2.0 ** min(failures - 1, 16), LONGEST_PAUSE_S)
    return whole * random.uniform(0.5, 1.0)


class Courier:
    """Of one receiver. To be used on one event loop."""

    def __init__(
        self,
        receiver: EventReceiver,
        sender: Sender,
        database: Database,
        pool: Executor,
        observer: EventObserver,
        now: Callable[[], datetime],
    ) -> None:
        """Args: `pool` runs what waits for the database; `now` gives timezone-aware moments."""
        self._receiver = receiver
        self._sender = sender
        self._database = database
        self._pool = pool
        self._observer = observer
        self._now = now
        self._give_up_after = span_of(receiver.give_up_after)
        self._failures = 0
        # Whether it may be noted for what was never tried that the receiver fails; by others too.
        self._noted = True

    async def step(self) -> float:
        """Makes one attempt if anything is due; returns the seconds to wait before the next step.

        Raises:
            NoDecisionError: DATABASE_UNAVAILABLE or DISK_FULL.
        """
        claimed = await self._claim()
        if claimed is None:
            return IDLE_S
        name, kind = self._receiver.name, claimed.event.kind
        outcome = await self._sender.send(claimed.event, self._now())
        if outcome.error:
            self._observer.event_failed(name, kind)
            return await self._put_off(claimed, outcome)
        self._observer.event_delivered(name, kind)
        if self._failures > 1:
            _log.info("events: %s takes events again", name)
        self._failures = 0
        await self._write(lambda one: rows.delivered(one, claimed.event.event_id, name))
        if self._noted:
            self._noted = await self._write(lambda one: rows.receiver_takes(one, name)) > 0
        return 0.0

    async def _claim(self) -> Claim | None:
        name, now = self._receiver.name, self._now()
        # Looked at first: of SQLite there is only one lock to write, and decisions need it.
        if not await self._read(lambda one: rows.is_due(one, name, now)):
            return None
        lease = timedelta(seconds=self._receiver.timeout_s + LEASE_MARGIN_S)
        least = self._failures > 1
        return await self._write(
            lambda one: rows.claim(one, name, now, now + lease, least_tried=least)
        )

    async def _put_off(self, claimed: Claim, outcome: Outcome) -> float:
        self._failures += 1
        pause = max(pause_s(self._failures), outcome.retry_after_s)
        given_up = await self._write(lambda one: self._note(one, claimed, outcome.error))
        if self._failures in (1, 2):  # who is away for long fills no log
            _log.warning(
                "events: %s did not take %s: %s",
                self._receiver.name,
                claimed.event.event_id,
                outcome.error,
            )
        if given_up:
            _log.error(
                "events: %d for %s are given up after %s; `loragate-server events list` shows them",
                given_up,
                self._receiver.name,
                self._receiver.give_up_after,
            )
        return pause

    def _note(self, connection: Connection, claimed: Claim, error: str) -> int:
        """Writes down a failure; returns how many events are given up because of it."""
        name, now = self._receiver.name, self._now()
        due_at = now + timedelta(seconds=pause_s(claimed.attempt))
        rows.failed(connection, claimed, now, due_at, error)
        of_receiver = self._failures > 1
        if of_receiver:
            self._noted = True
            rows.receiver_fails(connection, name, now)
        if self._give_up_after is None:
            return 0
        only = "" if of_receiver else claimed.event.event_id
        return rows.give_up(connection, name, now - self._give_up_after, now, only)

    async def _read(self, work: Callable[[Connection], Result]) -> Result:
        def run() -> Result:
            with self._database.reading() as connection:
                return work(connection)

        return await asyncio.get_running_loop().run_in_executor(self._pool, run)

    async def _write(self, work: Callable[[Connection], Result]) -> Result:
        def run() -> Result:
            with self._database.writing() as connection:
                return work(connection)

        return await asyncio.get_running_loop().run_in_executor(self._pool, run)
