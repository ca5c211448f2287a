"""Rows whose time is over, on a connection that the caller has opened.

What is never among them: decisions that a block rests on (`known_uses`) lose their evidence only,
and what waits for a reviewer loses nothing. Sketches, digests of weights and rejections are in
tables that nothing here touches. So whatever was blocked stays blocked.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    delete,
    exists,
    func,
    literal,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from loragate_server.record.codec import to_json
from loragate_server.record.paging import Place
from loragate_server.record.reviews.rows import lapsed_before, waiting
from loragate_server.record.tables import audits, known_uses, pruned, reviews

BATCH = 200


@dataclass(frozen=True)
class OldRow:
    """A row whose time is over.

    Attributes:
        payload: as the codec writes it; None where it cannot be read, and nothing is done with it.
        size_bytes: of payload and signed form.
    """

    id: str
    made_at: datetime
    payload: dict[str, Any] | None
    envelope: bytes
    size_bytes: int


OldRows = Callable[[Connection, datetime, datetime, Place | None], list[OldRow]]
"""From a connection, the moment before which rows are old, now, and the place to begin after."""


def old_decisions(
    connection: Connection, before: datetime, now: datetime, after: Place | None
) -> list[OldRow]:
    """Decisions that may go altogether, oldest first, at most `BATCH`."""
    query = _decisions(before, now, after).where(~_known())
    return [_row(*found) for found in connection.execute(query)]


def old_evidence(
    connection: Connection, before: datetime, now: datetime, after: Place | None
) -> list[OldRow]:
    """Decisions that may lose their evidence, oldest first, at most `BATCH`."""
    query = _decisions(before, now, after).where(audits.c.evidence_pruned_at.is_(None))
    return [_row(*found) for found in connection.execute(query)]


def old_reviews(
    connection: Connection, before: datetime, _now: datetime, after: Place | None
) -> list[OldRow]:
    """Reviews that may go, oldest first, at most `BATCH`."""
    columns = reviews.c
    query = (
        select(columns.review_id, columns.reviewed_at, columns.payload, literal(None))
        .where(columns.subject_key.in_(lapsed_before(before)))
        .order_by(columns.reviewed_at, columns.review_id)
        .limit(BATCH)
    )
    if after is not None:
        key = tuple_(columns.reviewed_at, columns.review_id)
        query = query.where(key > tuple_(after.decided_at, after.decision_id))
    return [_row(*found) for found in connection.execute(query)]


def count_known(connection: Connection, before: datetime) -> int:
    """How many old decisions stay because a block rests on them."""
    query = select(func.count()).select_from(audits).where(audits.c.decided_at < before, _known())
    return int(connection.execute(query).scalar_one())


def count_waiting(connection: Connection, before: datetime, now: datetime) -> int:
    """How many old decisions stay because a person still has to look at them."""
    old = (audits.c.decided_at < before) & audits.c.decision_id.in_(waiting(now))
    return int(connection.execute(select(func.count()).select_from(audits).where(old)).scalar_one())


def remove_decisions(connection: Connection, rows: Sequence[OldRow], now: datetime, at: str) -> int:
    """Deletes decisions and remembers their ids; returns how many there still were."""
    _remember(connection, "decision", rows, now, at)
    these = audits.c.decision_id.in_([one.id for one in rows])
    return connection.execute(delete(audits).where(these, ~_known())).rowcount


def remove_reviews(connection: Connection, rows: Sequence[OldRow], now: datetime, at: str) -> int:
    """As `remove_decisions`, for reviews."""
    _remember(connection, "review", rows, now, at)
    these = reviews.c.review_id.in_([one.id for one in rows])
    return connection.execute(delete(reviews).where(these)).rowcount


def remove_evidence(
    connection: Connection, rows: Sequence[OldRow], now: datetime, _archive: str
) -> int:
    """Takes the measured numbers out of decisions; returns how many still had them."""
    done = 0
    for one in rows:
        if one.payload is None:
            continue
        had = (audits.c.decision_id == one.id) & audits.c.evidence_pruned_at.is_(None)
        thin = to_json(without_evidence(one.payload))
        values = {"payload": thin, "evidence_pruned_at": now}
        done += connection.execute(update(audits).where(had).values(**values)).rowcount
    return done


def without_evidence(payload: dict[str, Any]) -> dict[str, Any]:
    """A decision without what was measured, but for the concepts that it was made for.

    Files, strengths, digests, reasons and who asked stay.
    """
    decision = payload["decision"]
    evidence = {
        **decision["evidence"],
        "concepts": [],
        "layers": [],
        "heat_map": None,
        "stage_times_s": {},
    }
    evidence.pop("packed", None)
    findings = [one for one in decision["findings"] if one["verdict"] != "ALLOW"]
    thin = {**decision, "evidence": evidence, "findings": findings}
    thin.pop("left_out", None)
    return {**payload, "decision": thin, "stage_times_s": {}}


def _decisions(before: datetime, now: datetime, after: Place | None) -> Select[Any]:
    columns = audits.c
    query = (
        select(columns.decision_id, columns.decided_at, columns.payload, columns.envelope)
        .where(columns.decided_at < before, columns.decision_id.not_in(waiting(now)))
        .order_by(columns.decided_at, columns.decision_id)
        .limit(BATCH)
    )
    if after is not None:
        key = tuple_(columns.decided_at, columns.decision_id)
        query = query.where(key > tuple_(after.decided_at, after.decision_id))
    return query


def _known() -> ColumnElement[bool]:
    return exists().where(known_uses.c.decision_id == audits.c.decision_id)


def _row(name: str, made_at: datetime, text: str, envelope: bytes | None) -> OldRow:
    signed = envelope or b""
    return OldRow(name, made_at, _object(text), signed, len(text) + len(signed))


def _object(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _remember(
    connection: Connection, kind: str, rows: Iterable[OldRow], now: datetime, at: str
) -> None:
    values = [
        {"id": one.id, "kind": kind, "made_at": one.made_at, "pruned_at": now, "archive": at}
        for one in rows
    ]
    # Another replica may prune the same ones at the same moment.
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    connection.execute(dialect.insert(pruned).on_conflict_do_nothing(), values)
