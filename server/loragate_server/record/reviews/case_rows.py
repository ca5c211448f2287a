"""Cases in the database: what people review together, on a connection that the caller has opened.

A file that is used alone is one case, at whatever strengths, with whatever configuration and on
whatever base model it was asked about: each of these uses is a subject of its own. Files that are
used together are a case for each subject, because an approval holds for their very strengths.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Select, and_, exists, func, select

from loragate_server.record.reviews.review import ReviewState
from loragate_server.record.reviews.rows import last, newest, positions, waits_now
from loragate_server.record.search import storable
from loragate_server.record.tables import audited_adapters, audits, findings, reviews

MOST_USES = 20
"""Uses of one case that are looked at; an approval speaks of these alone."""

_second = audited_adapters.alias("second")
_alone = ~exists().where(
    _second.c.decision_id == audited_adapters.c.decision_id, _second.c.position == 1
)
_file = (
    select(audited_adapters.c.sha256)
    .where(audited_adapters.c.decision_id == newest.c.decision_id)
    .where(audited_adapters.c.position == 0, _alone)
    .correlate(newest)
    .scalar_subquery()
)
_case_key = func.coalesce(_file, newest.c.subject_key)


@dataclass(frozen=True)
class CaseRow:
    """A case that waits for a reviewer.

    Attributes:
        decision_id: the newest decision about a use that waits.
        uses: how many wait.
        asked: recorded decisions about them.
    """

    key: str
    decision_id: str
    uses: int
    asked: int


@dataclass(frozen=True)
class UseRow:
    """A subject of a case: its newest decision, and how many there are."""

    subject_key: str
    decision_id: str
    asked: int


def open_cases(connection: Connection, now: datetime, size: int, before: str = "") -> list[CaseRow]:
    """Cases that wait, newest decision first, whose newest decision is older than `before`."""
    each = _open(now).subquery("each")
    last_asked = func.max(each.c.decision_id)
    query = (
        select(each.c.key, last_asked, func.count(), func.sum(each.c.asked))
        .where(each.c.key.not_in(_rejected()))
        .group_by(each.c.key)
        .order_by(last_asked.desc())
        .limit(size)
    )
    if before:
        query = query.having(last_asked < before)
    return [
        CaseRow(key, at, uses, int(asked)) for key, at, uses, asked in connection.execute(query)
    ]


def count_cases(connection: Connection, now: datetime) -> int:
    """How many cases `open_cases` would give in all."""
    each = _open(now).subquery("each")
    query = select(func.count(each.c.key.distinct())).where(each.c.key.not_in(_rejected()))
    return int(connection.execute(query).scalar_one())


def waiting_uses(
    connection: Connection, now: datetime, keys: Sequence[str]
) -> Mapping[str, list[UseRow]]:
    """Of each case the newest uses that wait, at most `MOST_USES`."""
    each = _open(now).subquery("each")
    query = (
        select(each.c.key, each.c.subject_key, each.c.decision_id, each.c.asked)
        .where(each.c.key.in_(list(keys)))
        .order_by(each.c.decision_id.desc())
    )
    found: dict[str, list[UseRow]] = defaultdict(list)
    for key, *use in connection.execute(query):
        if len(found[key]) < MOST_USES:
            found[key].append(UseRow(*use))
    return found


def uses_of_file(connection: Connection, sha256: str) -> list[UseRow]:
    """All uses of a file alone that a person could or can review, newest first."""
    at = func.max(audits.c.decision_id)
    query = (
        select(audits.c.subject_key, at, func.count())
        .join_from(audited_adapters, audits, audits.c.decision_id == audited_adapters.c.decision_id)
        .where(audited_adapters.c.sha256 == sha256, audited_adapters.c.position == 0, _alone)
        .where(audits.c.subject_key.is_not(None))
        .group_by(audits.c.subject_key)
        .order_by(at.desc())
    )
    return [UseRow(*row) for row in connection.execute(query)]


def services_of(connection: Connection, keys: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
    """By subject the services that asked about it, sorted."""
    columns = (audits.c.subject_key, audits.c.caller_service)
    query = select(*columns).where(audits.c.subject_key.in_(list(keys))).distinct()
    found: dict[str, list[str]] = defaultdict(list)
    for key, service in connection.execute(query):
        found[key].append(service)
    return {key: tuple(sorted(several)) for key, several in found.items()}


def severities_of(connection: Connection, decision_ids: Sequence[str]) -> Mapping[str, set[str]]:
    """By decision the severities of the concepts that the policy acted on."""
    columns = (findings.c.decision_id, findings.c.severity)
    query = select(*columns).where(findings.c.decision_id.in_(list(decision_ids)))
    found: dict[str, set[str]] = defaultdict(set)
    for decision_id, severity in connection.execute(query):
        found[decision_id].add(severity)
    return found


def severities_now(connection: Connection, concept_ids: Iterable[str]) -> set[str]:
    """The severities of concepts as the newest decisions have them that found any of them."""
    found: set[str] = set()
    for concept_id in concept_ids:
        query = select(findings.c.severity).where(findings.c.concept_id == storable(concept_id))
        newest_one = query.order_by(findings.c.decision_id.desc()).limit(1)
        found.update(connection.execute(newest_one).scalars())
    return found


def _open(now: datetime) -> Select[tuple[str, str, str, int]]:
    """Subjects that wait, with the key of their case."""
    return (
        select(_case_key.label("key"), newest.c.subject_key, newest.c.decision_id, newest.c.asked)
        .select_from(newest)
        .outerjoin(last, newest.c.subject_key == positions.c.subject_key)
        .where(waits_now(now))
    )


def _rejected() -> Select[tuple[str]]:
    """Cases of which a use was rejected: that blocks the file, so that none of it waits."""
    rejected = and_(
        newest.c.subject_key == positions.c.subject_key,
        reviews.c.state == ReviewState.REJECTED.value,
    )
    return select(_case_key).select_from(newest).join(last, rejected)
