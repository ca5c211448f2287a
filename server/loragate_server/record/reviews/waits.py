"""Since when reviews wait for a person, and how long those had waited that were settled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, func, select

from loragate_server.record.reviews.review import RecordedReview, ReviewAction, ReviewState
from loragate_server.record.tables import audits

SETTLED = (ReviewState.APPROVED, ReviewState.REJECTED)


@dataclass(frozen=True)
class Settled:
    """A review that a person settled, and since when it had waited for one; timezone-aware."""

    settled_at: datetime
    waited_since: datetime

    @property
    def waited_s(self) -> float:
        """Seconds; 0 where clocks of replicas are apart the wrong way."""
        return max(0.0, (self.settled_at - self.waited_since).total_seconds())


@dataclass(frozen=True)
class Wait:
    """The waiting of one subject.

    Attributes:
        settled: ids of the events that settled it, each with what had been waited for it.
        since: since when it waits now, timezone-aware; None where it waits for nobody.
    """

    settled: tuple[tuple[str, Settled], ...]
    since: datetime | None


def waits(
    connection: Connection,
    events: Mapping[str, Sequence[RecordedReview]],
    now: datetime | None = None,
) -> dict[str, Wait]:
    """The waiting of some subjects.

    A subject waits from the first question about it; once settled, from when it was reopened, or
    first asked about after its approval had lapsed.

    Args:
        connection: to the database.
        events: of each subject, in order of their position.
        now: when an approval may have lapsed; None leaves the last one in force.
    """
    asked = _first_asked(connection, list(events))
    return {
        key: _wait(connection, key, several, asked.get(key), now) for key, several in events.items()
    }


def _wait(
    connection: Connection,
    key: str,
    events: Sequence[RecordedReview],
    asked: datetime | None,
    now: datetime | None,
) -> Wait:
    since, ends = asked, None
    settled: list[tuple[str, Settled]] = []
    for one in events:
        at = one.event.reviewed_at
        if ends is not None and at >= ends:
            since = _first_asked(connection, [key], ends).get(key, ends)
        if one.event.action is ReviewAction.REOPEN:
            since = at
        elif one.state in SETTLED:
            # Whoever takes an approval back has waited for nothing.
            if since is not None:
                settled.append((one.event.review_id, Settled(at, since)))
            since = None
        ends = one.ends_at
    if now is not None and ends is not None and now >= ends:
        since = _first_asked(connection, [key], ends).get(key)
    return Wait(tuple(settled), since)


def _first_asked(
    connection: Connection, keys: Sequence[str], after: datetime | None = None
) -> dict[str, datetime]:
    query = select(audits.c.subject_key, func.min(audits.c.decided_at).label("at"))
    query = query.where(audits.c.subject_key.in_(keys)).group_by(audits.c.subject_key)
    if after is not None:
        query = query.where(audits.c.decided_at > after)
    return {row.subject_key: row.at for row in connection.execute(query)}
