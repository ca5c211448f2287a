"""`Reviews`: people settle what an audit only suspected, and every act of theirs is on record."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from sqlalchemy.exc import IntegrityError

from loragate_server.errors import NoDecisionError
from loragate_server.policy.decision import VerdictKind
from loragate_server.policy.review import Subject, subject_of
from loragate_server.record.codec import encode, to_json
from loragate_server.record.ids import new_decision_id
from loragate_server.record.paging import Place, make_token, read_token
from loragate_server.record.recorder import Recorder, checked_page_size, decode_stored
from loragate_server.record.reviews import rows as rows
from loragate_server.record.reviews.review import (
    RecordedReview,
    ReviewAction,
    ReviewCase,
    ReviewEvent,
    ReviewState,
    ruling_of,
    standing,
)
from loragate_server.record.reviews.waits import waits
from loragate_server.record.verdict import Verdict

MAX_REASON_LENGTH = 2000
_QUEUE = ("review queue",)


class RefusalCode(StrEnum):
    """Why an act of a reviewer was refused."""

    NOT_REVIEWABLE = "not_reviewable"
    STALE = "stale"
    SAME_REVIEWER = "same_reviewer"
    NOT_OPEN = "not_open"
    REASON_MISSING = "reason_missing"
    EXPIRY_INVALID = "expiry_invalid"
    ADMIN_ONLY = "admin_only"


class ReviewRefused(Exception):  # noqa: N818 - it says what happened, as the pages do
    """Nothing was recorded, and why: a sentence, and what the reviewer can do."""

    def __init__(self, code: RefusalCode, message: str, remedy: str) -> None:
        super().__init__(f"{message} {remedy}")
        self.code = code
        self.message = message
        self.remedy = remedy


@dataclass(frozen=True)
class ReviewRules:
    """What the operator demands of reviews.

    Attributes:
        four_eyes_severities: a suspected concept of these severities needs two people's approval.
        longest_approval: after which an approval lapses at the latest.
    """

    four_eyes_severities: frozenset[str]
    longest_approval: timedelta


class Reviews:
    """Reviews of the decisions of a `Recorder`. Thread-safe; everything here blocks."""

    def __init__(
        self, recorder: Recorder, rules: ReviewRules, *, told: Callable[[ReviewAction], None]
    ) -> None:
        """Args: `told` hears of every recorded act."""
        self.rules = rules
        self._recorder = recorder
        self._told = told

    def case(self, decision_id: str) -> ReviewCase:
        """A decision and where its review stands.

        Raises:
            NoDecisionError: DECISION_UNKNOWN or DATABASE_UNAVAILABLE.
        """
        return self._case(self._recorder.get(decision_id))

    def queue(self, size: int = 0, page_token: str = "") -> tuple[list[ReviewCase], str]:
        """Subjects that wait for a reviewer, most recently asked about first, and the next token.

        Raises:
            NoDecisionError: PAGE_TOKEN_INVALID, REQUEST_INVALID or DATABASE_UNAVAILABLE.
        """
        wanted = checked_page_size(size)
        after = read_token(page_token, _QUEUE)
        now = datetime.now(UTC)
        with self._recorder.database.reading() as connection:
            before = after.decision_id if after else ""
            found = rows.open_subjects(connection, now, wanted + 1, before)
            events = rows.events_about(connection, [one.subject_key for one in found])
            waiting = waits(connection, events, now)
        cases = [
            replace(
                self._described(
                    decode_stored(one.payload), events[one.subject_key], one.asked, now
                ),
                waiting_since=waiting[one.subject_key].since,
            )
            for one in found[:wanted]
        ]
        if len(found) <= wanted:
            return cases, ""
        last = cases[-1].verdict
        return cases, make_token(Place(last.decided_at, last.decision_id), _QUEUE)

    def open_count(self) -> int:
        """How many subjects wait for a reviewer; NoDecisionError DATABASE_UNAVAILABLE."""
        with self._recorder.database.reading() as connection:
            return rows.count_open(connection, datetime.now(UTC))

    def act(
        self,
        decision_id: str,
        action: ReviewAction,
        *,
        reviewer: str,
        reason: str,
        position: int,
        expires_at: datetime | None = None,
        admin: bool = False,
    ) -> ReviewCase:
        """Records what a reviewer does; it is in force when this returns.

        Args:
            decision_id: the decision that the reviewer looked at.
            action: what the reviewer does.
            reviewer: authenticated name; goes into the decision log.
            reason: why, for whoever asks later.
            position: how many events the reviewer saw. If there are more by now, or the same form
                comes twice, the act is refused.
            expires_at: timezone-aware end of an approval.
            admin: whether the reviewer may open a settled review again.

        Raises:
            ReviewRefused: it cannot be done so.
            NoDecisionError: the decision is not known, or it could not be recorded.
        """
        verdict = self._recorder.get(decision_id)
        subject = _subject(verdict)
        now = datetime.now(UTC)
        why = reason.strip()
        self._require_sound(action, why, expires_at, now, admin=admin)
        event = ReviewEvent(
            review_id=new_decision_id(now),
            subject_key=subject.key,
            decision_id=decision_id,
            position=position,
            action=action,
            reviewer=reviewer,
            reason=why,
            reviewed_at=now,
            needs_second=self._needs_second(verdict),
            expires_at=expires_at if action is ReviewAction.APPROVE else None,
        )
        self._record(event, subject)
        self._told(action)
        return self._case(verdict)

    def _record(self, event: ReviewEvent, subject: Subject) -> None:
        """The row is inserted, the line logged, the row committed, as with decisions."""
        logged = False
        try:
            with self._recorder.database.writing() as connection:
                before = [
                    one.event for one in rows.events_about(connection, [subject.key])[subject.key]
                ]
                _require_open(before, event)
                after = standing([*before, event], event.reviewed_at)
                review = RecordedReview(
                    event, subject, after.state, after.expires_at, ruling_of(subject, after)
                )
                payload = encode(review)
                try:
                    rows.insert_review(connection, review, to_json(payload))
                except IntegrityError as error:
                    raise _stale() from error
                self._recorder.database.announcer.reviewed(connection, review)
                link = self._recorder.log.append_review(payload)
                logged = True
                self._recorder.require_taken(link)
        except NoDecisionError as error:
            if logged:
                self._note_not_recorded(event.review_id, error)
            raise

    def _note_not_recorded(self, review_id: str, error: NoDecisionError) -> None:
        with contextlib.suppress(NoDecisionError):
            self._recorder.log.append_note(
                {"code": "review_void", "review_id": review_id, "cause": error.reason.value}
            )

    def _require_sound(
        self,
        action: ReviewAction,
        reason: str,
        expires_at: datetime | None,
        now: datetime,
        *,
        admin: bool,
    ) -> None:
        if not reason or len(reason) > MAX_REASON_LENGTH:
            raise ReviewRefused(
                RefusalCode.REASON_MISSING,
                f"A review needs a reason of 1 to {MAX_REASON_LENGTH} letters.",
                "Write down why; it stands in the decision log.",
            )
        if action is ReviewAction.REOPEN and not admin:
            raise ReviewRefused(
                RefusalCode.ADMIN_ONLY,
                "Only an admin may open a settled review again.",
                "Ask an admin.",
            )
        latest = now + self.rules.longest_approval
        if action is ReviewAction.APPROVE and not (expires_at and now < expires_at <= latest):
            raise ReviewRefused(
                RefusalCode.EXPIRY_INVALID,
                "An approval needs an end, which lies in the future and not after "
                f"{latest:%Y-%m-%d %H:%M} UTC.",
                "Choose an earlier or a later day.",
            )

    def _case(self, verdict: Verdict) -> ReviewCase:
        subject = subject_of(verdict.decision) if verdict.binding else None
        if subject is None:
            return ReviewCase(verdict, False, (), ReviewState.OPEN, False, 1)
        with self._recorder.database.reading() as connection:
            events = rows.events_about(connection, [subject.key])[subject.key]
            asked = rows.times_asked(connection, subject.key)
        return self._described(verdict, events, asked, datetime.now(UTC))

    def _described(
        self, verdict: Verdict, recorded: Sequence[RecordedReview], asked: int, now: datetime
    ) -> ReviewCase:
        events = tuple(one.event for one in recorded)
        state = standing(events, now).state
        return ReviewCase(verdict, True, events, state, self._needs_second(verdict), asked)

    def _needs_second(self, verdict: Verdict) -> bool:
        return any(
            finding.evidence.severity in self.rules.four_eyes_severities
            for finding in verdict.decision.findings
            if finding.verdict is VerdictKind.REVIEW
        )


def _subject(verdict: Verdict) -> Subject:
    subject = subject_of(verdict.decision) if verdict.binding else None
    if subject is None:
        raise ReviewRefused(
            RefusalCode.NOT_REVIEWABLE,
            f"The decision {verdict.decision_id} cannot be reviewed.",
            "Only binding decisions that say REVIEW because a concept is suspected can be.",
        )
    return subject


def _require_open(before: Sequence[ReviewEvent], event: ReviewEvent) -> None:
    if event.position != len(before):
        raise _stale()
    now = standing(before, event.reviewed_at)
    settled = now.state in (ReviewState.APPROVED, ReviewState.REJECTED)
    if event.action is ReviewAction.REOPEN:
        possible = settled or now.state is ReviewState.AWAITING_SECOND
    elif event.action is ReviewAction.REJECT:
        possible = now.state is not ReviewState.REJECTED  # an approval can be withdrawn so
    else:
        possible = not settled
    if not possible:
        raise ReviewRefused(
            RefusalCode.NOT_OPEN,
            f"The review is {now.state.value}, so that it cannot be changed in this way.",
            "Look at it again; an admin can open it again.",
        )
    if event.action is ReviewAction.APPROVE and any(
        name.casefold() == event.reviewer.casefold() for name in now.approvers
    ):
        raise ReviewRefused(
            RefusalCode.SAME_REVIEWER,
            f"{event.reviewer} has approved already, and severe concepts need two people.",
            "Have somebody else look at it.",
        )


def _stale() -> ReviewRefused:
    return ReviewRefused(
        RefusalCode.STALE,
        "Somebody has acted on this review meanwhile, or the form was sent twice.",
        "Look at the page again.",
    )
