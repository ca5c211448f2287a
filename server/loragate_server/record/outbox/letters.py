"""What waits and what was given up, for people and for metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, func, select, update

from loragate_server.record.outbox.rows import delivered
from loragate_server.record.search import storable
from loragate_server.record.tables import event_deliveries, events


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


def retry(connection: Connection, choice: Choice, now: datetime) -> int:
    """Makes letters due at once, as if they had never been tried; returns how many."""
    again = {"due_at": now, "attempts": 0, "failing_since": None, "dead_at": None}
    query = update(event_deliveries).where(*choice.conditions).values(**again)
    return connection.execute(query).rowcount


def drop(connection: Connection, choice: Choice) -> int:
    """Takes letters away, undelivered; returns how many."""
    c = event_deliveries.c
    query = select(c.event_id, c.receiver).where(*choice.conditions)
    found = connection.execute(query.order_by(c.event_id, c.receiver)).all()
    return sum(delivered(connection, row.event_id, row.receiver) for row in found)


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
