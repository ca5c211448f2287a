"""Reviews as they are recorded: events, and the state that follows from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from loragate_server.policy.review import Ruling, Subject
from loragate_server.record.verdict import Verdict


class ReviewAction(StrEnum):
    """What a reviewer does."""

    APPROVE = "approve"
    REJECT = "reject"
    REOPEN = "reopen"


class ReviewState(StrEnum):
    """Where a review stands."""

    OPEN = "open"
    AWAITING_SECOND = "awaiting_second"
    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"


@dataclass(frozen=True)
class ReviewEvent:
    """One act of one reviewer.

    Attributes:
        subject_key: of what was reviewed; see `policy.review.Subject`.
        decision_id: the decision that the reviewer looked at.
        position: 0 for the first event about the subject, then 1, 2...
        needs_second: whether an approval needed two people when this event was recorded.
        expires_at: when an approval lapses; None for other actions.
    """

    review_id: str
    subject_key: str
    decision_id: str
    position: int
    action: ReviewAction
    reviewer: str
    reason: str
    reviewed_at: datetime
    needs_second: bool = False
    expires_at: datetime | None = None


@dataclass(frozen=True)
class ReviewCase:
    """A subject under review.

    Attributes:
        verdict: a decision about it.
        reviewable: whether a person can settle it.
        events: everything that reviewers did, in order.
        needs_second: whether an approval needs two different people.
        asked: recorded decisions about the same subject.
    """

    verdict: Verdict
    reviewable: bool
    events: tuple[ReviewEvent, ...]
    state: ReviewState
    needs_second: bool
    asked: int


@dataclass(frozen=True)
class Use:
    """One subject of a case, as a page lists it.

    Attributes:
        review: of its newest decision, or of the one that is looked at.
        services: that asked about it.
    """

    subject_key: str
    review: ReviewCase
    services: tuple[str, ...] = ()


@dataclass(frozen=True)
class PastUse:
    """A subject of a case on which people have ruled, and of which no decision is left."""

    subject: Subject
    events: tuple[ReviewEvent, ...]
    state: ReviewState


@dataclass(frozen=True)
class FileCase:
    """What people review together: a file with all its uses, or files that are used together.

    Attributes:
        looked_at: the review of the decision that is looked at.
        uses: that one first, then the others, the most recently asked about first; empty where
            there is nothing to review.
        more: further uses, about which nothing is known here.
        rejected: whether any use was, which blocks the file.
        past: what was ruled about it beside these uses; no page can show it.
    """

    looked_at: ReviewCase
    uses: tuple[Use, ...]
    more: int
    rejected: bool
    past: tuple[PastUse, ...] = ()


@dataclass(frozen=True)
class WaitingCase:
    """A case that waits for a person.

    Attributes:
        verdict: the newest decision about a use that waits.
        state: of the use that has come least far.
        uses: how many wait.
        asked: recorded decisions about those.
        severities: of the concepts that any of them is suspected of.
        waiting_since: timezone-aware; of the use that has waited longest.
    """

    verdict: Verdict
    state: ReviewState
    uses: int
    asked: int
    severities: frozenset[str]
    waiting_since: datetime


@dataclass(frozen=True)
class Standing:
    """What events come to.

    Attributes:
        approvers: who has approved since the review was last opened.
        expires_at: when the approval lapses: the earliest end that an approver set.
        settled_by: the event that settled it; None while it is not settled.
    """

    state: ReviewState
    approvers: tuple[str, ...] = ()
    expires_at: datetime | None = None
    settled_by: ReviewEvent | None = None


def standing(events: Sequence[ReviewEvent], now: datetime) -> Standing:
    """Follows the events of one subject, in order.

    An approval that has lapsed opens the review again: what follows it counts anew.

    Args:
        events: of one subject, by position.
        now: timezone-aware.
    """
    current = Standing(ReviewState.OPEN)
    for event in events:
        current = _after(lapsed(current, event.reviewed_at), event)
    return lapsed(current, now)


def lapsed(current: Standing, now: datetime) -> Standing:
    """The same standing at `now`, when an approval may have lapsed."""
    if current.expires_at is None or now < current.expires_at:
        return current
    return Standing(ReviewState.EXPIRED, expires_at=current.expires_at)


def _after(before: Standing, event: ReviewEvent) -> Standing:
    if event.action is ReviewAction.REOPEN:
        return Standing(ReviewState.OPEN)
    if event.action is ReviewAction.REJECT:
        return Standing(ReviewState.REJECTED, settled_by=event)
    earlier = before.approvers if before.state is ReviewState.AWAITING_SECOND else ()
    approvers = (*earlier, event.reviewer)
    first_end = before.expires_at if earlier else None
    ends = [end for end in (first_end, event.expires_at) if end is not None]
    enough = not event.needs_second or len(set(approvers)) > 1
    return Standing(
        ReviewState.APPROVED if enough else ReviewState.AWAITING_SECOND,
        approvers,
        min(ends, default=None),
        event if enough else None,
    )


def ruling_of(subject: Subject, current: Standing) -> Ruling | None:
    """What the gate has to obey; None where nothing is settled."""
    event = current.settled_by
    if event is None:
        return None
    approved = current.state is ReviewState.APPROVED
    return Ruling(
        review_id=event.review_id,
        subject=subject,
        approved=approved,
        reviewers=current.approvers if approved else (event.reviewer,),
        reason=event.reason,
        expires_at=current.expires_at,
    )


@dataclass(frozen=True)
class RecordedReview:
    """What a row and a line of the log hold of one event.

    Attributes:
        ruling: what is in force after it; None where nothing is settled.
    """

    event: ReviewEvent
    subject: Subject
    state: ReviewState
    ends_at: datetime | None
    ruling: Ruling | None
