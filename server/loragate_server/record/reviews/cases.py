"""What belongs to a case, and which of its uses an act is about."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, select

from loragate_server.policy.decision import VerdictKind
from loragate_server.record.database import Database
from loragate_server.record.recorder import decode_stored
from loragate_server.record.reviews.case_rows import (
    MOST_USES,
    CaseRow,
    UseRow,
    open_cases,
    services_of,
    severities_of,
    uses_of_file,
    waiting_uses,
)
from loragate_server.record.reviews.refusals import not_open, stale, uses_missing
from loragate_server.record.reviews.review import (
    FileCase,
    PastUse,
    RecordedReview,
    ReviewAction,
    ReviewState,
    Use,
    WaitingCase,
    standing,
)
from loragate_server.record.reviews.rows import events_about, events_about_file
from loragate_server.record.reviews.waits import waits
from loragate_server.record.tables import audits
from loragate_server.record.verdict import Verdict

MOST_AT_ONCE = 48
"""Subjects that one transaction settles; fewer than `unfinished` looks back on after a crash.

An act about more of them takes several: what an approval covers is always fewer."""

_ACTED_ON = (ReviewState.APPROVED, ReviewState.AWAITING_SECOND, ReviewState.REJECTED)


@dataclass(frozen=True)
class Act:
    """What a reviewer does.

    Attributes:
        reviewer: authenticated name; goes into the decision log.
        reason: why, for whoever asks later.
        expires_at: timezone-aware end of an approval.
        admin: whether the reviewer may open a settled review again.
    """

    action: ReviewAction
    reviewer: str
    reason: str
    expires_at: datetime | None = None
    admin: bool = False


@dataclass(frozen=True)
class OtherUse:
    """A use beside the one that is looked at, by its newest decision."""

    key: str
    verdict: Verdict
    asked: int


@dataclass(frozen=True)
class Found:
    """What the database holds of a case; `events` are those of every use, listed or not."""

    others: tuple[OtherUse, ...]
    more: int
    past: tuple[PastUse, ...]
    events: Mapping[str, Sequence[RecordedReview]]
    services: Mapping[str, tuple[str, ...]]


def read_queue(
    database: Database, wanted: int, before: str
) -> tuple[list[WaitingCase], Verdict | None]:
    """So many cases that wait, and the verdict after which further ones come; None for none."""
    now = datetime.now(UTC)
    with database.reading() as connection:
        found = open_cases(connection, now, wanted + 1, before)
        shown = found[:wanted]
        cases = _waiting(connection, shown, now)
    return cases, cases[-1].verdict if len(found) > wanted else None


def _waiting(connection: Connection, cases: Sequence[CaseRow], now: datetime) -> list[WaitingCase]:
    uses = waiting_uses(connection, now, [one.key for one in cases])
    each = [use for several in uses.values() for use in several]
    events = events_about(connection, [use.subject_key for use in each])
    waiting = waits(connection, events, now)
    severities = severities_of(connection, [use.decision_id for use in each])
    verdicts = _verdicts(connection, [one.decision_id for one in cases])
    made = []
    for case in cases:
        of_case, verdict = uses.get(case.key, []), verdicts[case.decision_id]
        states = {
            standing([one.event for one in events[use.subject_key]], now).state for use in of_case
        }
        begun = [waiting[use.subject_key].since or verdict.decided_at for use in of_case]
        made.append(
            WaitingCase(
                verdict=verdict,
                state=_least_far(states),
                uses=case.uses,
                asked=case.asked,
                severities=_suspected(verdict).union(
                    *(severities.get(use.decision_id, set()) for use in of_case)
                ),
                waiting_since=min(begun, default=verdict.decided_at),
            )
        )
    return made


def _suspected(verdict: Verdict) -> frozenset[str]:
    """Severities of the concepts that a decision leaves to a person."""
    findings = verdict.decision.findings
    return frozenset(one.evidence.severity for one in findings if one.verdict is VerdictKind.REVIEW)


def _least_far(states: Collection[ReviewState]) -> ReviewState:
    order = (ReviewState.OPEN, ReviewState.EXPIRED, ReviewState.AWAITING_SECOND)
    return next((one for one in order if one in states), ReviewState.OPEN)


def read_uses(connection: Connection, verdict: Verdict, key: str, *, every: bool) -> Found:
    """The uses beside the one of a verdict, with what was done about any of them.

    Args:
        connection: to the database.
        verdict: the decision that is looked at.
        key: of its subject.
        every: also lists uses beyond the newest that people have acted on.
    """
    adapters = verdict.decision.evidence.adapters
    sha256 = adapters[0].sha256 if len(adapters) == 1 else ""
    known = uses_of_file(connection, sha256) if sha256 else []
    others = [one for one in known if one.subject_key != key]
    events = events_about(connection, [key, *(one.subject_key for one in others)])
    about = events_about_file(connection, sha256) if sha256 else {}
    past = _past({name: several for name, several in about.items() if name not in events})
    listed, rest = others[: MOST_USES - 1], others[MOST_USES - 1 :]
    if every:
        now = datetime.now(UTC)
        listed += [one for one in rest if _state(events[one.subject_key], now) in _ACTED_ON]
    verdicts = _verdicts(connection, [one.decision_id for one in listed])
    services = services_of(connection, [key, *(one.subject_key for one in listed)])
    return Found(
        tuple(_other(one, verdicts) for one in listed),
        len(others) - len(listed),
        past,
        events,
        services,
    )


def _past(events: Mapping[str, Sequence[RecordedReview]]) -> tuple[PastUse, ...]:
    now = datetime.now(UTC)
    found = [
        PastUse(several[0].subject, tuple(one.event for one in several), _state(several, now))
        for several in events.values()
    ]
    return tuple(one for one in found if one.state in _ACTED_ON)


def past_concerned(case: FileCase, action: ReviewAction) -> list[PastUse]:
    """The past uses that an act is about; an approval speaks of none."""
    return [
        one for one in case.past if action is not ReviewAction.APPROVE and _can(action, one.state)
    ]


def concerned(
    case: FileCase, action: ReviewAction, seen: Mapping[str, int], chosen: Collection[str]
) -> list[tuple[Use, int]]:
    """The uses that an act is about, each with how many events there are about it.

    Raises:
        ReviewRefused: somebody has acted since the reviewer saw the uses; an approval covers
            nothing, or what the reviewer did not see; or there is nothing that could be done.
    """
    by_key = {use.subject_key: use for use in case.uses}
    if case.uses[0].subject_key not in seen or any(
        seen.get(key, len(use.review.events)) != len(use.review.events)
        for key, use in by_key.items()
    ):
        raise stale()
    if action is ReviewAction.APPROVE:
        if not chosen:
            raise uses_missing()
        if any(key not in by_key or key not in seen for key in chosen):
            raise stale()
        about = [by_key[key] for key in sorted(chosen)]
        if case.rejected:
            raise not_open(ReviewState.REJECTED)
    else:
        about = [use for use in case.uses if _can(action, use.review.state)]
        # A rejection that is taken back last blocks the file until all approvals are.
        about.sort(key=lambda use: use.review.state is ReviewState.REJECTED)
        if not about and not past_concerned(case, action):
            raise not_open(case.looked_at.state)
    # Of a use that the page did not list, whatever was done is taken back as well.
    return [(use, len(use.review.events)) for use in about]


def _can(action: ReviewAction, state: ReviewState) -> bool:
    if action is ReviewAction.REJECT:
        return state is not ReviewState.REJECTED
    return state in _ACTED_ON


def _state(events: Sequence[RecordedReview], now: datetime) -> ReviewState:
    return standing([one.event for one in events], now).state


def _other(use: UseRow, verdicts: Mapping[str, Verdict]) -> OtherUse:
    return OtherUse(use.subject_key, verdicts[use.decision_id], use.asked)


def _verdicts(connection: Connection, decision_ids: Sequence[str]) -> Mapping[str, Verdict]:
    columns = (audits.c.decision_id, audits.c.payload)
    query = select(*columns).where(audits.c.decision_id.in_(list(decision_ids)))
    return {name: decode_stored(payload) for name, payload in connection.execute(query)}
