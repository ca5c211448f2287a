"""`Reviews`: people settle what an audit only suspected, and every act of theirs is on record."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from loragate_server.errors import NoDecisionError
from loragate_server.policy.decision import VerdictKind
from loragate_server.policy.review import Subject, subject_of
from loragate_server.record.codec import encode, to_json
from loragate_server.record.ids import new_decision_id
from loragate_server.record.paging import Place, make_token, read_token
from loragate_server.record.recorder import Recorder, checked_page_size
from loragate_server.record.reviews import rows as rows
from loragate_server.record.reviews.case_rows import count_cases, severities_now
from loragate_server.record.reviews.cases import (
    MOST_AT_ONCE,
    Act,
    concerned,
    past_concerned,
    read_queue,
    read_uses,
)
from loragate_server.record.reviews.refusals import (
    RefusalCode as RefusalCode,
)
from loragate_server.record.reviews.refusals import (
    ReviewRefused as ReviewRefused,
)
from loragate_server.record.reviews.refusals import (
    not_reviewable,
    require_open,
    require_sound,
    stale,
)
from loragate_server.record.reviews.review import (
    FileCase,
    RecordedReview,
    ReviewAction,
    ReviewCase,
    ReviewEvent,
    ReviewState,
    Use,
    WaitingCase,
    ruling_of,
    standing,
)
from loragate_server.record.verdict import Verdict

_QUEUE = ("review queue",)


@dataclass(frozen=True)
class ReviewRules:
    """What the operator demands of reviews.

    Attributes:
        four_eyes_severities: a suspected concept of these severities needs two people's approval.
        longest_approval: after which an approval lapses at the latest.
    """

    four_eyes_severities: frozenset[str]
    longest_approval: timedelta


@dataclass(frozen=True)
class _Place:
    """A subject that an act is about, by a decision, and how many events the reviewer saw."""

    verdict: Verdict
    subject: Subject
    position: int


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

    def file_case(self, decision_id: str) -> FileCase:
        """A decision, and every use of its file that is reviewed together with it.

        Raises:
            NoDecisionError: DECISION_UNKNOWN or DATABASE_UNAVAILABLE.
        """
        return self._file_case(self._recorder.get(decision_id))

    def queue(self, size: int = 0, page_token: str = "") -> tuple[list[WaitingCase], str]:
        """Cases that wait for a reviewer, most recently asked about first, and the next token.

        Raises:
            NoDecisionError: PAGE_TOKEN_INVALID, REQUEST_INVALID or DATABASE_UNAVAILABLE.
        """
        wanted = checked_page_size(size)
        after = read_token(page_token, _QUEUE)
        cases, last = read_queue(
            self._recorder.database, wanted, after.decision_id if after else ""
        )
        token = "" if last is None else make_token(Place(last.decided_at, last.decision_id), _QUEUE)
        return cases, token

    def open_count(self) -> int:
        """How many cases wait for a reviewer; NoDecisionError DATABASE_UNAVAILABLE."""
        with self._recorder.database.reading() as connection:
            return count_cases(connection, datetime.now(UTC))

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
        place = _Place(verdict, _subject(verdict), position)
        act = self._sound(Act(action, reviewer, reason, expires_at, admin))
        self._settle([place], act)
        return self._case(verdict)

    def act_on_file(
        self,
        decision_id: str,
        act: Act,
        *,
        seen: Mapping[str, int],
        chosen: Collection[str],
    ) -> FileCase:
        """Records what a reviewer does about a file; all of it is in force when this returns.

        An approval settles the uses that were chosen and no other. A rejection blocks the file, so
        it settles all; a reopening takes back whatever was said about any of them.

        Args:
            decision_id: the decision that the reviewer looked at.
            act: what the reviewer does.
            seen: by key of each use that the reviewer saw, how many events about it.
            chosen: keys of the uses that an approval is to cover.

        Raises:
            ReviewRefused: it cannot be done so; nothing of it is recorded.
            NoDecisionError: the decision is not known, or it could not be recorded. Of more than
                `MOST_AT_ONCE` uses some may be; what is left can be acted on again.
        """
        verdict = self._recorder.get(decision_id)
        _subject(verdict)
        act = self._sound(act)
        case = self._file_case(verdict, every=act.action is not ReviewAction.APPROVE)
        places = [
            _Place(one.review.verdict, _subject(one.review.verdict), at)
            for one, at in concerned(case, act.action, seen, chosen)
        ]
        past = past_concerned(case, act.action)
        places += [_Place(verdict, one.subject, len(one.events)) for one in past]
        for start in range(0, len(places), MOST_AT_ONCE):
            self._settle(places[start : start + MOST_AT_ONCE], act)
        return self._file_case(verdict)

    def _sound(self, act: Act) -> Act:
        """The act without spaces around its reason; ReviewRefused where nobody may do it so."""
        bare = replace(act, reason=act.reason.strip())
        longest = self.rules.longest_approval
        require_sound(
            bare.action, bare.reason, bare.expires_at, datetime.now(UTC), longest, admin=bare.admin
        )
        return bare

    def _settle(self, places: Sequence[_Place], act: Act) -> None:
        """The same act about each of some subjects, or about none."""
        now = datetime.now(UTC)
        with self._recorder.database.reading() as connection:
            severe = [self._needs_second(connection, one.verdict) for one in places]
        events = [
            (
                ReviewEvent(
                    review_id=new_decision_id(now),
                    subject_key=one.subject.key,
                    decision_id=one.verdict.decision_id,
                    position=one.position,
                    action=act.action,
                    reviewer=act.reviewer,
                    reason=act.reason,
                    reviewed_at=now,
                    needs_second=needs_second,
                    expires_at=act.expires_at if act.action is ReviewAction.APPROVE else None,
                ),
                one.subject,
            )
            for one, needs_second in zip(places, severe, strict=True)
        ]
        self._record(events)
        self._told(act.action)

    def _record(self, events: Sequence[tuple[ReviewEvent, Subject]]) -> None:
        """The rows are inserted, the lines logged, the rows committed, as with decisions."""
        logged: list[str] = []
        try:
            with self._recorder.database.writing() as connection:
                payloads = [self._insert(connection, *one) for one in events]
                for (event, _), payload in zip(events, payloads, strict=True):
                    link = self._recorder.log.append_review(payload)
                    logged.append(event.review_id)
                    self._recorder.require_taken(link)
        except NoDecisionError as error:
            for review_id in logged:
                self._note_not_recorded(review_id, error)
            raise

    def _insert(
        self, connection: Connection, event: ReviewEvent, subject: Subject
    ) -> dict[str, Any]:
        """Inserts a row, and gives what is logged of it."""
        key = subject.key
        before = [one.event for one in rows.events_about(connection, [key])[key]]
        require_open(before, event)
        after = standing([*before, event], event.reviewed_at)
        ruling = ruling_of(subject, after)
        review = RecordedReview(event, subject, after.state, after.expires_at, ruling)
        payload = encode(review)
        try:
            rows.insert_review(connection, review, to_json(payload))
        except IntegrityError as error:
            raise stale() from error
        self._recorder.database.announcer.reviewed(connection, review)
        return payload

    def _note_not_recorded(self, review_id: str, error: NoDecisionError) -> None:
        with contextlib.suppress(NoDecisionError):
            self._recorder.log.append_note(
                {"code": "review_void", "review_id": review_id, "cause": error.reason.value}
            )

    def _case(self, verdict: Verdict) -> ReviewCase:
        subject = subject_of(verdict.decision) if verdict.binding else None
        if subject is None:
            return ReviewCase(verdict, False, (), ReviewState.OPEN, False, 1)
        with self._recorder.database.reading() as connection:
            events = rows.events_about(connection, [subject.key])[subject.key]
            asked = rows.times_asked(connection, subject.key)
            return self._described(connection, verdict, events, asked)

    def _file_case(self, verdict: Verdict, *, every: bool = False) -> FileCase:
        """Args: `every` also lists what people have acted on and no page would show."""
        looked_at = self._case(verdict)
        if not looked_at.reviewable:
            return FileCase(looked_at, (), 0, rejected=False)
        key, now = _subject(verdict).key, datetime.now(UTC)
        with self._recorder.database.reading() as connection:
            found = read_uses(connection, verdict, key, every=every)
            uses = [Use(key, looked_at, found.services.get(key, ()))]
            for one in found.others:
                recorded = found.events[one.key]
                described = self._described(connection, one.verdict, recorded, one.asked)
                uses.append(Use(one.key, described, found.services.get(one.key, ())))
        states = (
            standing([one.event for one in each], now).state for each in found.events.values()
        )
        rejected = ReviewState.REJECTED in (*states, *(one.state for one in found.past))
        return FileCase(looked_at, tuple(uses), found.more, rejected, found.past)

    def _described(
        self,
        connection: Connection,
        verdict: Verdict,
        recorded: Sequence[RecordedReview],
        asked: int,
    ) -> ReviewCase:
        events = tuple(one.event for one in recorded)
        state = standing(events, datetime.now(UTC)).state
        severe = self._needs_second(connection, verdict)
        return ReviewCase(verdict, True, events, state, severe, asked)

    def _needs_second(self, connection: Connection, verdict: Verdict) -> bool:
        """Whether a suspected concept is severe, or has become so since the verdict.

        An approval speaks of concepts by their ids. One that was given on the page of an old
        decision would else let through by one person what needs two by now.
        """
        suspected = [
            finding.evidence
            for finding in verdict.decision.findings
            if finding.verdict is VerdictKind.REVIEW
        ]
        severities = {one.severity for one in suspected}
        severities |= severities_now(connection, [one.concept_id for one in suspected])
        return not severities.isdisjoint(self.rules.four_eyes_severities)


def _subject(verdict: Verdict) -> Subject:
    subject = subject_of(verdict.decision) if verdict.binding else None
    if subject is None:
        raise not_reviewable(verdict.decision_id)
    return subject
