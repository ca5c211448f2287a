"""Events and their deliveries, on a connection that the caller has opened.

One row per event and receiver. Whoever delivers claims a row by putting off the moment at which it
is due: if he is killed, the row is due again when his lease has run out. The count of attempts
tells a claim from a later one of somebody else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, delete, exists, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from loragate_server.record.search import storable
from loragate_server.record.tables import event_deliveries, events

MAX_ERROR_LETTERS = 300
BATCH = 500
"""Rows that are changed at once."""

_waiting = event_deliveries.c.dead_at.is_(None)


@dataclass(frozen=True)
class Event:
    """What is told.

    Attributes:
        event_id: the same at every attempt, so that receivers can drop what comes twice.
        made_at: timezone-aware.
        body: as it is sent, ASCII.
        topic: 64 hexadecimal digits of what is told only once while it lasts; empty where every
            event is another.
    """

    event_id: str
    kind: str
    made_at: datetime
    body: str
    topic: str = ""


@dataclass(frozen=True)
class Claim:
    """An event that is to be sent to one receiver now, by nobody else until the lease runs out.

    Attributes:
        attempt: 1 for the first.
        failing_since: when an attempt failed, or one of another event before its turn; None where
            none has.
    """

    event: Event
    receiver: str
    attempt: int
    failing_since: datetime | None


def add(connection: Connection, event: Event, receivers: Sequence[str]) -> bool:
    """Whether it was added: nothing is where its topic is told already, or nobody is told."""
    if not receivers:
        return False
    values = {
        "event_id": event.event_id,
        "kind": event.kind,
        "made_at": event.made_at,
        "topic": event.topic or None,
        "body": event.body,
    }
    # Another replica may tell of the same topic at the same moment.
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    added = dialect.insert(events).values(**values).on_conflict_do_nothing()
    # Asked for, because drivers differ in how many rows they say were inserted.
    if connection.execute(added.returning(events.c.event_id)).first() is None:
        return False
    deliveries = [
        {
            "event_id": event.event_id,
            "receiver": receiver,
            "made_at": event.made_at,
            "due_at": event.made_at,
            "attempts": 0,
            "last_error": "",
        }
        for receiver in receivers
    ]
    connection.execute(insert(event_deliveries), deliveries)
    return True


def is_due(connection: Connection, receiver: str, now: datetime) -> bool:
    """Whether `claim` would find anything; takes no lock."""
    found = select(event_deliveries.c.event_id).where(*_due(receiver, now)).limit(1)
    return connection.execute(found).first() is not None


def claim(
    connection: Connection,
    receiver: str,
    now: datetime,
    until: datetime,
    *,
    least_tried: bool = False,
) -> Claim | None:
    """The oldest event that is due to a receiver; it is not due again before `until`.

    Args:
        connection: in a transaction that writes.
        receiver: name.
        now: timezone-aware.
        until: end of the lease, timezone-aware.
        least_tried: the one that was tried least instead, and of several the oldest.
    """
    c = event_deliveries.c
    order = (c.attempts, c.made_at, c.event_id) if least_tried else (c.made_at, c.event_id)
    query = (
        select(c.event_id, c.attempts, c.failing_since)
        .where(*_due(receiver, now))
        .order_by(*order)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    found = connection.execute(query).one_or_none()
    if found is None:
        return None
    attempt = found.attempts + 1
    connection.execute(
        update(event_deliveries)
        .where(*_delivery(found.event_id, receiver))
        .values(due_at=until, attempts=attempt)
    )
    row = connection.execute(select(events).where(events.c.event_id == found.event_id)).one()
    event = Event(row.event_id, row.kind, row.made_at, row.body, row.topic or "")
    return Claim(event, receiver, attempt, found.failing_since)


def delivered(connection: Connection, event_id: str, receiver: str) -> bool:
    """Forgets a delivery, and the event with its last one; whether it was still there.

    Events with a topic stay: else they would be told again.
    """
    lock_events(connection, [event_id])
    gone = delete(event_deliveries).where(*_delivery(event_id, receiver))
    there = connection.execute(gone).rowcount > 0
    forget_delivered(connection, [event_id])
    return there


def lock_events(connection: Connection, event_ids: Sequence[str]) -> None:
    """Before deliveries are taken away.

    Two that take away the last two of one event would each find the other's still there. All lock
    in the same order, so that they do not wait for each other.
    """
    those = select(events.c.event_id).where(events.c.event_id.in_(event_ids))
    connection.execute(those.order_by(events.c.event_id).with_for_update()).all()


def forget_delivered(connection: Connection, event_ids: Sequence[str]) -> None:
    """Takes away those of some events that are still to be delivered to nobody, but for topics."""
    left = exists().where(event_deliveries.c.event_id == events.c.event_id)
    over = events.c.event_id.in_(event_ids) & events.c.topic.is_(None) & ~left
    connection.execute(delete(events).where(over))


def failed(
    connection: Connection, claimed: Claim, now: datetime, due_at: datetime, error: str
) -> None:
    """Puts off an event whose delivery failed, unless somebody else has claimed it since."""
    c = event_deliveries.c
    connection.execute(
        update(event_deliveries)
        .where(*_delivery(claimed.event.event_id, claimed.receiver))
        .where(c.attempts == claimed.attempt)
        .values(
            due_at=due_at,
            failing_since=claimed.failing_since or now,
            last_error=storable(error)[:MAX_ERROR_LETTERS],
        )
    )


def receiver_fails(connection: Connection, receiver: str, now: datetime) -> None:
    """Notes for what waits for a receiver since when it has been waiting because of that.

    For the oldest `BATCH` of which it is not noted: decisions need the lock that is held meanwhile.
    """
    c = event_deliveries.c
    _change(connection, receiver, (c.failing_since.is_(None),), {"failing_since": now})


def receiver_takes(connection: Connection, receiver: str) -> int:
    """Notes that what was never tried does not wait because of the receiver; returns for how many.

    For the oldest `BATCH` at most. Else what comes late only because much waits would be given up
    as soon as the receiver fails again.
    """
    c = event_deliveries.c
    meant = (c.attempts == 0, c.failing_since.is_not(None))
    return _change(connection, receiver, meant, {"failing_since": None})


def give_up(
    connection: Connection, receiver: str, since: datetime, now: datetime, event_id: str = ""
) -> int:
    """Makes dead letters of what has been failing since a moment or longer; returns how many.

    Args:
        connection: in a transaction that writes.
        receiver: name.
        since: timezone-aware.
        now: timezone-aware.
        event_id: of the only event that it may be; "" for the oldest `BATCH` that wait.
    """
    c = event_deliveries.c
    meant = [c.failing_since <= since]
    if event_id:
        meant.append(c.event_id == event_id)
    return _change(connection, receiver, meant, {"dead_at": now})


def _change(
    connection: Connection,
    receiver: str,
    meant: Sequence[ColumnElement[bool]],
    values: Mapping[str, datetime | None],
) -> int:
    """Changes the oldest that wait for a receiver and are meant; returns how many.

    In two steps: PostgreSQL plans an update with a limit below it so that it takes seconds, and
    rows that others have locked are left to the next time, since two would wait for each other.
    """
    c = event_deliveries.c
    oldest = (
        select(c.event_id)
        .where(c.receiver == receiver, _waiting, *meant)
        .order_by(c.made_at, c.event_id)
        .limit(BATCH)
        .with_for_update(skip_locked=True)
    )
    found = connection.execute(oldest).scalars().all()
    if not found:
        return 0
    of_batch = (c.receiver == receiver, c.event_id.in_(found))
    return connection.execute(update(event_deliveries).where(*of_batch).values(**values)).rowcount


def forget_topics(connection: Connection, prefix: str, keep: str = "") -> None:
    """Lets topics be told of anew; what was told of them and not delivered is still delivered.

    Args:
        connection: in a transaction that writes.
        prefix: hexadecimal digits that their names begin with.
        keep: the one that still lasts; "" for none.
    """
    about = events.c.topic.startswith(prefix) & (events.c.topic != keep)
    left = exists().where(event_deliveries.c.event_id == events.c.event_id)
    connection.execute(delete(events).where(about, ~left))
    connection.execute(update(events).where(about).values(topic=None))


def _due(receiver: str, now: datetime) -> tuple[ColumnElement[bool], ...]:
    c = event_deliveries.c
    return (c.receiver == receiver, _waiting, c.due_at <= now)


def _delivery(event_id: str, receiver: str) -> tuple[ColumnElement[bool], ...]:
    c = event_deliveries.c
    return (c.event_id == event_id, c.receiver == receiver)
