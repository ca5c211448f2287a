"""Why an act of a reviewer is refused, and what has to hold before one is recorded."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum

from loragate_server.record.reviews.review import (
    ReviewAction,
    ReviewEvent,
    ReviewState,
    standing,
)

MAX_REASON_LENGTH = 2000


class RefusalCode(StrEnum):
    """Why an act of a reviewer was refused."""

    NOT_REVIEWABLE = "not_reviewable"
    STALE = "stale"
    SAME_REVIEWER = "same_reviewer"
    NOT_OPEN = "not_open"
    REASON_MISSING = "reason_missing"
    EXPIRY_INVALID = "expiry_invalid"
    ADMIN_ONLY = "admin_only"
    USES_MISSING = "uses_missing"


class ReviewRefused(Exception):  # noqa: N818 - it says what happened, as the pages do
    """Nothing was recorded, and why: a sentence, and what the reviewer can do."""

    def __init__(self, code: RefusalCode, message: str, remedy: str) -> None:
        super().__init__(f"{message} {remedy}")
        self.code = code
        self.message = message
        self.remedy = remedy


def require_sound(
    action: ReviewAction,
    reason: str,
    expires_at: datetime | None,
    now: datetime,
    longest: timedelta,
    *,
    admin: bool,
) -> None:
    """What has to hold whatever is reviewed.

    Args:
        action: what the reviewer does.
        reason: why, without spaces around it.
        expires_at: timezone-aware end of an approval.
        now: timezone-aware.
        longest: life of an approval.
        admin: whether the reviewer may open a settled review again.

    Raises:
        ReviewRefused: it does not.
    """
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
    latest = now + longest
    if action is ReviewAction.APPROVE and not (expires_at and now < expires_at <= latest):
        raise ReviewRefused(
            RefusalCode.EXPIRY_INVALID,
            "An approval needs an end, which lies in the future and not after "
            f"{latest:%Y-%m-%d %H:%M} UTC.",
            "Choose an earlier or a later day.",
        )


def require_open(before: Sequence[ReviewEvent], event: ReviewEvent) -> None:
    """What has to hold of the subject of an event.

    Args:
        before: the events that are recorded about it.
        event: what is to be recorded after them.

    Raises:
        ReviewRefused: it does not.
    """
    if event.position != len(before):
        raise stale()
    now = standing(before, event.reviewed_at)
    settled = now.state in (ReviewState.APPROVED, ReviewState.REJECTED)
    if event.action is ReviewAction.REOPEN:
        possible = settled or now.state is ReviewState.AWAITING_SECOND
    elif event.action is ReviewAction.REJECT:
        possible = now.state is not ReviewState.REJECTED  # an approval can be withdrawn so
    else:
        possible = not settled
    if not possible:
        raise not_open(now.state)
    if event.action is ReviewAction.APPROVE and any(
        name.casefold() == event.reviewer.casefold() for name in now.approvers
    ):
        raise ReviewRefused(
            RefusalCode.SAME_REVIEWER,
            f"{event.reviewer} has approved already, and severe concepts need two people.",
            "Have somebody else look at it.",
        )


def not_reviewable(decision_id: str) -> ReviewRefused:
    """There is nothing to review about a decision."""
    return ReviewRefused(
        RefusalCode.NOT_REVIEWABLE,
        f"The decision {decision_id} cannot be reviewed.",
        "Only binding decisions that say REVIEW because a concept is suspected can be.",
    )


def not_open(state: ReviewState) -> ReviewRefused:
    """The state does not allow the act."""
    return ReviewRefused(
        RefusalCode.NOT_OPEN,
        f"The review is {state.value}, so that it cannot be changed in this way.",
        "Look at it again; an admin can open it again.",
    )


def uses_missing() -> ReviewRefused:
    """An approval that covers nothing."""
    return ReviewRefused(
        RefusalCode.USES_MISSING,
        "An approval covers no use of the adapter.",
        "Choose at least one of the uses.",
    )


def stale() -> ReviewRefused:
    """What the reviewer saw is no longer what is recorded."""
    return ReviewRefused(
        RefusalCode.STALE,
        "Somebody has acted on this review meanwhile, or the form was sent twice.",
        "Look at the page again.",
    )
