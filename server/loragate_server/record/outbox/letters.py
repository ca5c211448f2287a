"""What waits and what was given up, for people and for metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, delete, func, select, tuple_, update

from loragate_server.record.outbox.rows import BATCH, forget_delivered, lock_events
from loragate_server.record.search import storable
from loragate_server.record.tables import event_deliveries, events

Key = tuple[str, str]
"""Of a letter: the event's id, and the name of the receiver."""


@dataclass(frozen=True)
class Letter:
    """An event that a receiver does not have.

    Attributes:
        made_at: timezone-aware, as all moments here.
        due_at: of the next attempt, or the end of the lease of the one that runs.
        dead_at: when it was given up; None while it is still tried.
        last_error: of the last attempt; empty before one has failed.
    """

    event_id: str
    receiver: str
    kind: str
    made_at: datetime
    due_at: datetime
    attempts: int
    dead_at: datetime | None
    last_error: str


@dataclass(frozen=True)
class Backlog:
    """How a receiver stands.

    Attributes:
        oldest_at: when the oldest event was made that still is to be delivered; None without one.
        waiting: events that are still to be delivered.
        dead: events that were given up.
    """

    oldest_at: datetime | None = None
    waiting: int = 0
    dead: int = 0


@dataclass(frozen=True)
class Choice:
    """Which letters are meant. What is empty or None is no condition.

    Attributes:
        event_ids: of the events.
        receiver: name.
        dead: only those that were given up, or only others.
    """

    event_ids: Sequence[str] = ()
    receiver: str = ""
    dead: bool | None = None

    @property
    def conditions(self) -> list[ColumnElement[bool]]:
        """The same in SQL, on the table `event_deliveries`."""
        c = event_deliveries.c
        wanted: list[ColumnElement[bool]] = []
        if self.event_ids:
            wanted.append(c.event_id.in_([storable(one) for one in self.event_ids]))
        if self.receiver:
            wanted.append(c.receiver == storable(self.receiver))
        if self.dead is not None:
            wanted.append(c.dead_at.is_not(None) if self.dead else c.dead_at.is_(None))
        return wanted


def letters(connection: Connection, choice: Choice, most: int) -> list[Letter]:
    """At most so many, oldest first."""
    c = event_deliveries.c
    query = (
        select(c.event_id, c.receiver, events.c.kind, c.made_at, c.due_at, c.attempts, c.dead_at,
               c.last_error)
        .join(events, events.c.event_id == c.event_id)
        .where(*choice.conditions)
        .order_by(c.made_at, c.event_id, c.receiver)
        .limit(most)
    )  # fmt: skip
    return [Letter(*row) for row in connection.execute(query)]


def walk(connection: Connection, choice: Choice, after: Key | None = None) -> list[Key]:
    """The next `BATCH` letters in the order of their keys; ids of events grow with time.

    What is changed goes by batches, each in a transaction of its own: decisions need the lock that
    is held meanwhile.

    Args:
        connection: that may only read.
        choice: which.
        after: the last of the batch before; None for the first one.
    """
    c = event_deliveries.c
    query = select(c.event_id, c.receiver).where(*choice.conditions)
    if after is not None:
        query = query.where(tuple_(c.event_id, c.receiver) > tuple_(*after))
    query = query.order_by(c.event_id, c.receiver).limit(BATCH)
    return [(row.event_id, row.receiver) for row in connection.execute(query)]


def retry(connection: Connection, choice: Choice, keys: Sequence[Key], now: datetime) -> int:
    """Makes letters due at once, as if they had never been tried; returns how many.

    Args:
        connection: in a transaction that writes.
        choice: what has to hold of them still.
        keys: of a batch.
        now: timezone-aware.
    """
    again = {"due_at": now, "attempts": 0, "failing_since": None, "dead_at": None}
    _lock(connection, keys)
    query = update(event_deliveries).where(*choice.conditions, _among(keys)).values(**again)
    return connection.execute(query).rowcount


def drop(connection: Connection, choice: Choice, keys: Sequence[Key]) -> int:
    """Takes letters away, undelivered; returns how many.

    Args:
        connection: in a transaction that writes.
        choice: what has to hold of them still.
        keys: of a batch.
    """
    ids = sorted({event_id for event_id, _ in keys})
    lock_events(connection, ids)
    _lock(connection, keys)
    gone = delete(event_deliveries).where(*choice.conditions, _among(keys))
    count = connection.execute(gone).rowcount
    forget_delivered(connection, ids)
    return count


def _lock(connection: Connection, keys: Sequence[Key]) -> None:
    """All lock in the same order, so that two commands do not wait for each other."""
    c = event_deliveries.c
    those = select(c.event_id).where(_among(keys)).order_by(c.event_id, c.receiver)
    connection.execute(those.with_for_update()).all()


def _among(keys: Sequence[Key]) -> ColumnElement[bool]:
    c = event_deliveries.c
    # The first half is for PostgreSQL, which uses no index for pairs.
    return c.event_id.in_([one for one, _ in keys]) & tuple_(c.event_id, c.receiver).in_(keys)


def backlogs(connection: Connection) -> dict[str, Backlog]:
    """By receiver, how it stands; without those for which there is nothing."""
    c = event_deliveries.c
    is_dead = c.dead_at.is_not(None).label("is_dead")
    query = select(c.receiver, is_dead, func.min(c.made_at), func.count()).group_by(
        c.receiver, is_dead
    )
    found: dict[str, Backlog] = {}
    for receiver, dead, oldest_at, count in connection.execute(query):
        before = found.get(receiver, Backlog())
        found[receiver] = (
            Backlog(before.oldest_at, before.waiting, count)
            if dead
            else Backlog(oldest_at, count, before.dead)
        )
    return found
