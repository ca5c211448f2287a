"""Decisions and reviews counted by day, in UTC, on a connection that the caller has opened."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, String, func, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from loragate_server.record.database import Span
from loragate_server.record.reviews.rows import events_about
from loragate_server.record.reviews.waits import SETTLED, Settled, waits
from loragate_server.record.search import Search, conditions
from loragate_server.record.tables import audits, findings, reviews

_AT_ONCE = 500


@dataclass(frozen=True)
class Counted:
    """How many decisions a day had of one kind. `name`: verdict, or id of a concept."""

    day: date
    name: str
    count: int


class _utc_day(FunctionElement[str]):  # noqa: N801 - a function of SQL
    """The day of a moment as text, like 2026-11-30."""

    type = String()
    inherit_cache = True


@compiles(_utc_day, "sqlite")
def _sqlite_day(element: Any, compiler: Any, **options: Any) -> str:
    return f"date({compiler.process(element.clauses, **options)})"


@compiles(_utc_day, "postgresql")
def _postgres_day(element: Any, compiler: Any, **options: Any) -> str:
    moment = compiler.process(element.clauses, **options)
    return f"to_char({moment} AT TIME ZONE 'UTC', 'YYYY-MM-DD')"


def verdicts_by_day(connection: Connection, span: Span) -> list[Counted]:
    """Binding decisions by what the policy decided, also where it only observed."""
    day = _utc_day(audits.c.decided_at)
    query = select(day, audits.c.would_be_verdict, func.count()).where(*_binding(span))
    rows = connection.execute(query.group_by(day, audits.c.would_be_verdict))
    return [Counted(date.fromisoformat(on), name, count) for on, name, count in rows]


def concepts_by_day(connection: Connection, span: Span) -> list[Counted]:
    """Binding decisions by the concepts that the policy acted on."""
    day = _utc_day(audits.c.decided_at)
    query = (
        select(day, findings.c.concept_id, func.count())
        .join_from(findings, audits, findings.c.decision_id == audits.c.decision_id)
        .where(*_binding(span))
        .group_by(day, findings.c.concept_id)
    )
    return [Counted(date.fromisoformat(on), *rest) for on, *rest in connection.execute(query)]


def newest_names(connection: Connection, concept_ids: Iterable[str]) -> dict[str, str]:
    """What the newest decision about each concept calls it."""
    wanted = list(concept_ids)
    newest = (
        select(func.max(findings.c.decision_id).label("decision_id"), findings.c.concept_id)
        .where(findings.c.concept_id.in_(wanted))
        .group_by(findings.c.concept_id)
        .subquery()
    )
    same = (findings.c.decision_id == newest.c.decision_id) & (
        findings.c.concept_id == newest.c.concept_id
    )
    query = select(findings.c.concept_id, findings.c.concept_name).join_from(findings, newest, same)
    return {row.concept_id: row.concept_name for row in connection.execute(query)}


def settled_reviews(connection: Connection, span: Span, most: int) -> list[Settled]:
    """Reviews that were settled in a span, at most so many, the latest first.

    Uses of a file that one act settled count once, with the one that had waited longest.
    A review waits from the first question about its subject; once settled, from when it was
    reopened, or first asked about after its approval had lapsed.
    """
    columns = reviews.c
    acts = [columns.state.in_([one.value for one in SETTLED]), *_reviewed(span)]
    query = select(columns.review_id, columns.subject_key).where(*acts)
    query = query.order_by(columns.reviewed_at.desc()).limit(most)
    wanted = {row.review_id: row.subject_key for row in connection.execute(query)}
    keys = sorted(set(wanted.values()))
    found: dict[tuple[datetime, frozenset[str]], Settled] = {}
    for start in range(0, len(keys), _AT_ONCE):
        events = events_about(connection, keys[start : start + _AT_ONCE])
        for key, wait in waits(connection, events).items():
            files = events[key][0].subject.sha256s
            for one in (one for review_id, one in wait.settled if review_id in wanted):
                act = (one.settled_at, files)
                found[act] = max(one, found.get(act, one), key=lambda each: each.waited_s)
    return sorted(found.values(), key=lambda one: one.settled_at, reverse=True)


def _reviewed(span: Span) -> list[ColumnElement[bool]]:
    at = reviews.c.reviewed_at
    since = [at >= span.since] if span.since else []
    return [*since, *([at < span.until] if span.until else [])]


def _binding(span: Span) -> list[ColumnElement[bool]]:
    return [
        audits.c.binding.is_(True),
        *conditions(Search(since=span.since, until=span.until, service=span.service)),
    ]
