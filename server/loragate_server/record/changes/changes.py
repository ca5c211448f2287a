"""`ConceptChanges`: people change the concept library, and every step is on record."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy.exc import IntegrityError

from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.record.changes.change import (
    CHANGE_NOTE,
    CHANGE_VOID,
    Change,
    ChangeEvent,
    ChangeState,
    ChangeStep,
    Proposal,
    RecordedChange,
    as_review,
)
from loragate_server.record.changes.rows import (
    count_unfinished,
    drop_pictures,
    insert_step,
    keep_pictures,
    newest_changes,
    read_change,
    read_one_picture,
    read_pictures,
    retired,
)
from loragate_server.record.codec import encode, to_json
from loragate_server.record.ids import new_decision_id
from loragate_server.record.recorder import Recorder
from loragate_server.record.reviews.refusals import (
    MAX_REASON_LENGTH,
    RefusalCode,
    ReviewRefused,
    not_open,
    require_open,
    stale,
)
from loragate_server.record.reviews.review import ReviewState

MOST_UNFINISHED = 20
"""Changes that may wait; the database holds the pictures of each."""

MOST_SHOWN = 50


class ConceptChanges:
    """Changes beside the decisions of a `Recorder`. Thread-safe; everything here blocks.

    A step is inserted, written to the decision log as a note, and committed, as acts of reviewers
    are; where it cannot be logged, nothing of it is in force.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def propose(
        self, proposal: Proposal, pictures: Sequence[bytes], person: str, reason: str
    ) -> Change:
        """Records what somebody wants; it is accepted at once unless it needs a second person.

        Raises:
            ReviewRefused: without a reason.
            NoDecisionError: QUEUE_FULL, or it could not be recorded.
        """
        now = datetime.now(UTC)
        event = ChangeEvent(
            new_decision_id(now), 0, ChangeStep.PROPOSE, person, _sound(reason), now
        )
        with self._recorder.database.reading() as connection:
            if count_unfinished(connection) >= MOST_UNFINISHED:
                raise NoDecisionError(
                    ErrorReason.QUEUE_FULL,
                    f"{MOST_UNFINISHED} changes of the library wait already.",
                    remedy="Settle some of them first.",
                )
        return self._record(Change(event.change_id, proposal, ()), event, pictures)

    def act(
        self, change_id: str, step: ChangeStep, *, person: str, reason: str, position: int
    ) -> Change:
        """Records what somebody says about a change.

        Args:
            change_id: of the change.
            step: to approve, to reject, or to try again.
            person: authenticated name; goes into the decision log.
            reason: why.
            position: how many steps the person saw.

        Raises:
            ReviewRefused: it cannot be done so.
            NoDecisionError: CONCEPT_UNKNOWN, or it could not be recorded.
        """
        change, now = self.get(change_id), datetime.now(UTC)
        event = ChangeEvent(change_id, position, step, person, _sound(reason), now)
        if position != len(change.events):
            raise stale()
        if change.state not in _POSSIBLE[step]:
            raise not_open(_AS_REVIEWS[change.state])
        if step is ChangeStep.APPROVE:
            before = change.reviews
            said = as_review(event, len(before), needs_second=change.proposal.needs_second)
            require_open(before, said)
        return self._record(change, event)

    def ended(self, change_id: str, *, digest: str = "", failure: str = "") -> Change:
        """Records what came of a change: the library that has it, or why none has.

        Two servers may have tried to make it. Where one has made it, it is no failure that the
        other found it made; where one has failed before, it is in force all the same.
        """
        change, now = self.get(change_id), datetime.now(UTC)
        step = ChangeStep.FAILED if failure else ChangeStep.APPLIED
        if change.state is ChangeState.APPLIED or (
            failure and change.state is not ChangeState.ACCEPTED
        ):
            return change
        detail = failure[:MAX_REASON_LENGTH] or digest
        return self._record(
            change, ChangeEvent(change_id, len(change.events), step, "", "", now, detail)
        )

    def get(self, change_id: str) -> Change:
        """A change; NoDecisionError CONCEPT_UNKNOWN or DATABASE_UNAVAILABLE."""
        with self._recorder.database.reading() as connection:
            found = read_change(connection, change_id)
        if found is None:
            raise NoDecisionError(
                ErrorReason.CONCEPT_UNKNOWN,
                f"No change {change_id[:64]!r} of the library is recorded.",
                remedy="Look at the list of changes.",
            )
        return found

    def newest(self) -> list[Change]:
        """The changes that were proposed last, at most `MOST_SHOWN`."""
        with self._recorder.database.reading() as connection:
            return newest_changes(connection, MOST_SHOWN)

    def last_of(self, concept_id: str) -> Change | None:
        """The last change of a concept that is in force, such as the one that retired it."""
        with self._recorder.database.reading() as connection:
            return retired(connection, concept_id)

    def pictures(self, change_id: str) -> list[bytes]:
        """The pictures that came with a change, until it has ended."""
        with self._recorder.database.reading() as connection:
            return read_pictures(connection, change_id)

    def picture(self, change_id: str, number: int) -> bytes | None:
        """One of them; all together are too many to be held for each that is shown."""
        with self._recorder.database.reading() as connection:
            return read_one_picture(connection, change_id, number)

    def _record(self, before: Change, event: ChangeEvent, pictures: Sequence[bytes] = ()) -> Change:
        after = Change(before.change_id, before.proposal, (*before.events, event))
        recorded = RecordedChange(event, before.proposal)
        payload, logged = encode(recorded), False
        try:
            with self._recorder.database.writing() as connection:
                try:
                    insert_step(connection, recorded, after.state, to_json(payload))
                except IntegrityError as error:
                    raise stale() from error
                keep_pictures(connection, event.change_id, pictures)
                if after.state in (ChangeState.APPLIED, ChangeState.REJECTED):
                    drop_pictures(connection, event.change_id)
                link = self._recorder.log.append_note({"code": CHANGE_NOTE, "change": payload})
                logged = True
                self._recorder.require_taken(link)
        except NoDecisionError as error:
            if logged:
                void = {
                    "code": CHANGE_VOID,
                    "change_id": event.change_id,
                    "position": event.position,
                }
                with contextlib.suppress(NoDecisionError):
                    self._recorder.log.append_note({**void, "cause": error.reason.value})
            raise
        return after


_POSSIBLE = {
    ChangeStep.APPROVE: (ChangeState.WAITING,),
    ChangeStep.REJECT: (ChangeState.WAITING, ChangeState.FAILED),
    ChangeStep.RETRY: (ChangeState.FAILED, ChangeState.ACCEPTED),
}
_AS_REVIEWS = {
    ChangeState.WAITING: ReviewState.AWAITING_SECOND,
    ChangeState.ACCEPTED: ReviewState.APPROVED,
    ChangeState.APPLIED: ReviewState.APPROVED,
    ChangeState.FAILED: ReviewState.APPROVED,
    ChangeState.REJECTED: ReviewState.REJECTED,
}


def _sound(reason: str) -> str:
    why = reason.strip()
    if not why or len(why) > MAX_REASON_LENGTH:
        raise ReviewRefused(
            RefusalCode.REASON_MISSING,
            f"A change needs a reason of 1 to {MAX_REASON_LENGTH} letters.",
            "Write down why; it stands in the decision log.",
        )
    return why
