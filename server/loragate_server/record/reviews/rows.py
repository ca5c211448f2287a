"""Reviews in the database, on a connection that the caller has opened."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, Select, and_, exists, func, insert, or_, select

from loragate_server.record.codec import parse_review
from loragate_server.record.reviews.review import RecordedReview, ReviewState
from loragate_server.record.search import storable
from loragate_server.record.tables import audits, pruned, reviews

_AT_ONCE = 500
_SETTLED = (ReviewState.APPROVED.value, ReviewState.REJECTED.value)

newest = (
    select(
        audits.c.subject_key,
        func.max(audits.c.decision_id).label("decision_id"),
        func.max(audits.c.decided_at).label("decided_at"),
        func.count().label("asked"),
    )
    .where(audits.c.subject_key.is_not(None))
    .group_by(audits.c.subject_key)
    .subquery("newest")
)
"""Subjects with their newest decision; ids of decisions rise with time."""

positions = (
    select(reviews.c.subject_key, func.max(reviews.c.position).label("position"))
    .group_by(reviews.c.subject_key)
    .subquery("positions")
)

last = positions.join(
    reviews,
    and_(
        reviews.c.subject_key == positions.c.subject_key,
        reviews.c.position == positions.c.position,
    ),
)
"""The last event of every subject."""


def events_about(
    connection: Connection, subject_keys: Iterable[str]
) -> Mapping[str, Sequence[RecordedReview]]:
    """Reviews by subject, in order of their position; an empty list where there are none."""
    found: dict[str, list[RecordedReview]] = {key: [] for key in subject_keys}
    query = select(reviews.c.subject_key, reviews.c.payload).order_by(reviews.c.position)
    keys = list(found)
    for start in range(0, len(keys), _AT_ONCE):
        some = reviews.c.subject_key.in_(keys[start : start + _AT_ONCE])
        for key, payload in connection.execute(query.where(some)):
            found[key].append(parse_review(payload))
    return found


def events_about_file(
    connection: Connection, sha256: str
) -> Mapping[str, Sequence[RecordedReview]]:
    """As `events_about`, for all subjects that are this file alone, asked about lately or not."""
    named = select(reviews.c.subject_key).where(reviews.c.payload.contains(sha256)).distinct()
    found = events_about(connection, connection.execute(named).scalars())
    return {
        key: several
        for key, several in found.items()
        if [one.sha256 for one in several[0].subject.adapters] == [sha256]
    }


def insert_review(connection: Connection, review: RecordedReview, payload: str) -> None:
    """Adds an event.

    Raises:
        sqlalchemy.exc.IntegrityError: there is one with the same subject and position.
    """
    event = review.event
    connection.execute(
        insert(reviews).values(
            review_id=event.review_id,
            subject_key=event.subject_key,
            position=event.position,
            reviewed_at=event.reviewed_at,
            state=review.state.value,
            ends_at=review.ends_at,
            reviewer=storable(event.reviewer),
            payload=payload,
        )
    )


def times_asked(connection: Connection, subject_key: str) -> int:
    """How many recorded decisions are about a subject."""
    query = select(func.count()).where(audits.c.subject_key == subject_key)
    return int(connection.execute(query).scalar_one())


def review_revision(connection: Connection) -> tuple[int, str]:
    """Another value whenever there are other events: how many there are, and the newest one.

    Events are never changed. Those of subjects that are over may be pruned, and count on: else one
    that goes would hide another that comes, where that was written by a clock that is behind.
    """
    query = select(func.count(), func.max(reviews.c.review_id)).select_from(reviews)
    count, latest = connection.execute(query).one()
    gone = select(func.count()).select_from(pruned).where(pruned.c.kind == "review")
    return int(count) + int(connection.execute(gone).scalar_one()), latest or ""


def waiting(now: datetime) -> Select[tuple[str]]:
    """The newest decisions of the subjects that wait for a reviewer."""
    return (
        select(newest.c.decision_id)
        .select_from(newest)
        .outerjoin(last, newest.c.subject_key == positions.c.subject_key)
        .where(waits_now(now))
    )


def lapsed_before(moment: datetime) -> Select[tuple[str]]:
    """The subjects whose approval lapsed before a moment, and about which no decision is left."""
    about = exists().where(audits.c.subject_key == reviews.c.subject_key)
    return (
        select(reviews.c.subject_key)
        .select_from(last)
        .where(reviews.c.state == ReviewState.APPROVED.value, reviews.c.ends_at < moment, ~about)
    )


def last_reviews(connection: Connection) -> list[RecordedReview]:
    """The last event of every subject that is settled."""
    query = select(reviews.c.payload).select_from(last)
    settled = query.where(reviews.c.state.in_(_SETTLED))
    return [parse_review(payload) for (payload,) in connection.execute(settled)]


def waits_now(now: datetime) -> ColumnElement[bool]:
    """Of `newest`, `last`: not settled, or asked about since its approval is over."""
    approval_over = and_(
        reviews.c.state == ReviewState.APPROVED.value,
        reviews.c.ends_at <= now,
        newest.c.decided_at > reviews.c.ends_at,
    )
    return or_(reviews.c.state.is_(None), reviews.c.state.not_in(_SETTLED), approval_over)
