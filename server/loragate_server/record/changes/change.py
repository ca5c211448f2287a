"""A change of the concept library as it is recorded: what is to be, and the steps that it took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from loragate_server.record.reviews.review import (
    ReviewAction,
    ReviewEvent,
    ReviewState,
    standing,
)

CHANGE_NOTE, CHANGE_VOID = "concept_change", "concept_change_void"
"""Codes of the notes of the decision log: a step, and that one does not count."""


class ChangeKind(StrEnum):
    """What is done to the library."""

    ADD = "add"
    CHANGE = "change"
    RETIRE = "retire"


class ChangeStep(StrEnum):
    """What happens to a change; the last two are the server's doing."""

    PROPOSE = "propose"
    APPROVE = "approve"
    REJECT = "reject"
    RETRY = "retry"
    APPLIED = "applied"
    FAILED = "failed"


class ChangeState(StrEnum):
    """Where a change stands."""

    WAITING = "waiting"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    APPLIED = "applied"
    FAILED = "failed"


@dataclass(frozen=True)
class Proposal:
    """A concept as it is to be, or as it was when it is retired.

    Attributes:
        names: in other languages, as pairs of language and name.
        picture_sha256: of the new pictures; empty where the concept keeps those that it has.
        picture_hands: one per new picture, or none.
        before: digest of the concept that is changed or retired; "" for a new one.
        needs_second: whether another person has to approve it.
    """

    kind: ChangeKind
    concept_id: str
    name: str
    names: tuple[tuple[str, str], ...]
    category: str
    severity: str
    prompts: tuple[str, ...]
    picture_sha256: tuple[str, ...]
    picture_hands: tuple[str, ...]
    before: str
    needs_second: bool


@dataclass(frozen=True)
class ChangeEvent:
    """One step.

    Attributes:
        position: 0 for the proposal, then 1, 2...
        person: who took it; "" for the server.
        reason: why, in the person's words.
        detail: digest of the library that has it, or why it failed; else "".
    """

    change_id: str
    position: int
    step: ChangeStep
    person: str
    reason: str
    at: datetime
    detail: str = ""


@dataclass(frozen=True)
class RecordedChange:
    """What a row and a line of the log hold: a step, and what it is about."""

    event: ChangeEvent
    proposal: Proposal


@dataclass(frozen=True)
class Change:
    """A change with everything that happened to it, in order."""

    change_id: str
    proposal: Proposal
    events: tuple[ChangeEvent, ...]

    @property
    def state(self) -> ChangeState:
        """Where it stands; two people are needed as for reviews."""
        last = self.events[-1].step
        if last in _ENDS:
            return _ENDS[last]
        state = standing(self.reviews, self.events[-1].at).state
        return _STATES.get(state, ChangeState.WAITING)

    @property
    def reviews(self) -> tuple[ReviewEvent, ...]:
        """What people said about it, as events of a review."""
        spoken = (one for one in self.events if one.step in _SAID)
        return tuple(
            as_review(one, position, needs_second=self.proposal.needs_second)
            for position, one in enumerate(spoken)
        )


_ENDS = {
    ChangeStep.APPLIED: ChangeState.APPLIED,
    ChangeStep.FAILED: ChangeState.FAILED,
    ChangeStep.RETRY: ChangeState.ACCEPTED,
}
_STATES = {
    ReviewState.APPROVED: ChangeState.ACCEPTED,
    ReviewState.REJECTED: ChangeState.REJECTED,
}
_SAID = {
    ChangeStep.PROPOSE: ReviewAction.APPROVE,
    ChangeStep.APPROVE: ReviewAction.APPROVE,
    ChangeStep.REJECT: ReviewAction.REJECT,
}


def as_review(event: ChangeEvent, position: int, *, needs_second: bool) -> ReviewEvent:
    """A step of a person as an event of a review: who proposes has approved."""
    return ReviewEvent(
        review_id=f"{event.change_id}-{event.position}",
        subject_key=event.change_id,
        decision_id="",
        position=position,
        action=_SAID[event.step],
        reviewer=event.person,
        reason=event.reason,
        reviewed_at=event.at,
        needs_second=needs_second,
    )


def change_of(recorded: Sequence[RecordedChange]) -> Change:
    """The change of which these are all steps, in order; at least one."""
    first = recorded[0]
    events = tuple(one.event for one in recorded)
    return Change(first.event.change_id, first.proposal, events)
