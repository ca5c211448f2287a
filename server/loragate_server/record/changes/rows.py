"""Changes of the library in the database, on a connection that the caller has opened."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from sqlalchemy import Connection, delete, func, insert, select

from loragate_server.record.changes.change import Change as Change
from loragate_server.record.changes.change import ChangeState, RecordedChange, change_of
from loragate_server.record.codec import parse_change
from loragate_server.record.search import storable
from loragate_server.record.tables import change_pictures, concept_changes

_last = (
    select(concept_changes.c.change_id, func.max(concept_changes.c.position).label("position"))
    .group_by(concept_changes.c.change_id)
    .subquery("last")
)


def insert_step(
    connection: Connection, recorded: RecordedChange, state: ChangeState, payload: str
) -> None:
    """Adds a step.

    Raises:
        sqlalchemy.exc.IntegrityError: there is one with the same change and position.
    """
    event = recorded.event
    connection.execute(
        insert(concept_changes).values(
            change_id=event.change_id,
            position=event.position,
            made_at=event.at,
            state=state.value,
            concept_id=storable(recorded.proposal.concept_id),
            payload=payload,
        )
    )


def read_change(connection: Connection, change_id: str) -> Change | None:
    """A change with all its steps."""
    return next(iter(_read(connection, [storable(change_id)])), None)


def newest_changes(connection: Connection, most: int) -> list[Change]:
    """The changes that were proposed last, newest first."""
    query = select(concept_changes.c.change_id).where(concept_changes.c.position == 0)
    query = query.order_by(concept_changes.c.change_id.desc()).limit(most)
    return _read(connection, [name for (name,) in connection.execute(query)])


def retired(connection: Connection, concept_id: str) -> Change | None:
    """The change by which a concept was last retired."""
    same = (concept_changes.c.change_id == _last.c.change_id) & (
        concept_changes.c.position == _last.c.position
    )
    query = (
        select(concept_changes.c.change_id)
        .join_from(concept_changes, _last, same)
        .where(concept_changes.c.concept_id == storable(concept_id))
        .where(concept_changes.c.state == ChangeState.APPLIED.value)
        .order_by(concept_changes.c.change_id.desc())
        .limit(1)
    )
    found = connection.execute(query).scalar_one_or_none()
    return None if found is None else read_change(connection, found)


def count_unfinished(connection: Connection) -> int:
    """How many changes wait for a person or for the server."""
    ended = [ChangeState.APPLIED.value, ChangeState.REJECTED.value]
    same = (concept_changes.c.change_id == _last.c.change_id) & (
        concept_changes.c.position == _last.c.position
    )
    query = select(func.count()).select_from(concept_changes.join(_last, same))
    return int(connection.execute(query.where(concept_changes.c.state.not_in(ended))).scalar_one())


def keep_pictures(connection: Connection, change_id: str, pictures: Sequence[bytes]) -> None:
    """Keeps the pictures of a change until it has ended."""
    rows = [
        {"change_id": change_id, "position": position, "picture": data}
        for position, data in enumerate(pictures)
    ]
    if rows:
        connection.execute(insert(change_pictures), rows)


def read_pictures(connection: Connection, change_id: str) -> list[bytes]:
    """The pictures of a change, in their order; none once it has ended."""
    query = select(change_pictures.c.picture).where(
        change_pictures.c.change_id == storable(change_id)
    )
    return [data for (data,) in connection.execute(query.order_by(change_pictures.c.position))]


def read_one_picture(connection: Connection, change_id: str, number: int) -> bytes | None:
    """One picture of a change, by its place; None where there is none, or none any more."""
    query = select(change_pictures.c.picture).where(
        change_pictures.c.change_id == storable(change_id), change_pictures.c.position == number
    )
    return connection.execute(query).scalar_one_or_none()


def drop_pictures(connection: Connection, change_id: str) -> None:
    """Forgets the pictures of a change."""
    connection.execute(delete(change_pictures).where(change_pictures.c.change_id == change_id))


def _read(connection: Connection, change_ids: Sequence[str]) -> list[Change]:
    found: dict[str, list[RecordedChange]] = defaultdict(list)
    query = select(concept_changes.c.change_id, concept_changes.c.payload).where(
        concept_changes.c.change_id.in_(change_ids)
    )
    for name, payload in connection.execute(query.order_by(concept_changes.c.position)):
        found[name].append(parse_change(payload))
    return [change_of(found[name]) for name in change_ids if name in found]
