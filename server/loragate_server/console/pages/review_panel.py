"""The review of one decision, in words: its state, its history, and what the reader may do."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from loragate_server.access.identity import Role, User
from loragate_server.console.pages.review_form import Form, last_day
from loragate_server.record.reviews.review import (
    ReviewAction,
    ReviewCase,
    ReviewEvent,
    ReviewState,
    Standing,
    standing,
)
from loragate_server.wording.printable import printable
from loragate_server.wording.wording import Wording

_SIGNS = {
    ReviewState.OPEN: ("REVIEW", "!"),
    ReviewState.AWAITING_SECOND: ("REVIEW", "½"),
    ReviewState.APPROVED: ("ALLOW", "✓"),
    ReviewState.REJECTED: ("BLOCK", "✕"),
    ReviewState.EXPIRED: ("INCONCLUSIVE", "⌛"),
}
_USUAL_APPROVAL = timedelta(days=30)
_LONGEST_NAME = 200
_LONGEST_REASON = 2000


@dataclass(frozen=True)
class EventView:
    """One act of a reviewer. `elsewhere`: id of the decision looked at, if it was another one."""

    review_id: str
    when: str
    who: str
    what: str
    why: str
    until: str
    elsewhere: str


@dataclass(frozen=True)
class Panel:
    """What the page shows of a review.

    Attributes:
        tone, sign: colour and sign of the state, those of the verdict that it leads to.
        notes: sentences that explain what holds.
        actions: what the reader may do; empty where there is no form.
        position: events that the reader sees; sent along with the form.
        expires, last_day: what the field for the end of an approval holds, and its bound.
    """

    reviewable: bool
    state: str
    tone: str
    sign: str
    asked: int
    notes: tuple[str, ...]
    events: tuple[EventView, ...]
    actions: tuple[str, ...]
    position: int
    typed: Form
    first_day: str
    expires: str
    last_day: str

    @property
    def approvable(self) -> bool:
        """Whether the form has a field for the end of an approval."""
        return ReviewAction.APPROVE in self.actions


def panel(wording: Wording, case: ReviewCase, user: User, longest: timedelta, typed: Form) -> Panel:
    """Puts a review into words.

    Args:
        wording: of the language.
        case: the review.
        user: whoever reads the page.
        longest: life of an approval.
        typed: what the form held when it was refused; empty for a fresh one.
    """
    now = datetime.now(UTC)
    current = standing(case.events, now)
    tone, sign = _SIGNS[case.state]
    last = last_day(now, longest)
    usual = min(last, (now + _USUAL_APPROVAL).date())
    return Panel(
        reviewable=case.reviewable,
        state=wording(f"state.{case.state.value}"),
        tone=tone,
        sign=sign,
        asked=case.asked,
        notes=_notes(wording, case, current, user),
        events=tuple(_event(wording, case, event) for event in case.events),
        actions=_actions(case, current, user),
        position=len(case.events),
        typed=typed,
        first_day=now.date().isoformat(),
        expires=typed.expires or usual.isoformat(),
        last_day=last.isoformat(),
    )


def _actions(case: ReviewCase, current: Standing, user: User) -> tuple[str, ...]:
    """What the reader may do now. The recorder decides; this only spares people dead ends."""
    if not case.reviewable or not user.may(Role.REVIEWER):
        return ()
    settled = current.state in (ReviewState.APPROVED, ReviewState.REJECTED)
    begun = settled or current.state is ReviewState.AWAITING_SECOND
    possible = (
        (ReviewAction.APPROVE, not settled and not _has_approved(current, user)),
        (ReviewAction.REJECT, current.state is not ReviewState.REJECTED),
        (ReviewAction.REOPEN, begun and user.may(Role.ADMIN)),
    )
    return tuple(action.value for action, allowed in possible if allowed)


def _has_approved(current: Standing, user: User) -> bool:
    return any(name.casefold() == user.name.casefold() for name in current.approvers)


def _notes(wording: Wording, case: ReviewCase, current: Standing, user: User) -> tuple[str, ...]:
    if not case.reviewable:
        return (wording("review.not_reviewable"),)
    notes = []
    if current.state is ReviewState.APPROVED and current.expires_at is not None:
        notes.append(wording("review.until", time=wording.moment(current.expires_at)))
    notes.append(wording("review.four_eyes" if case.needs_second else "review.one_person"))
    notes.append(wording("review.scope"))
    if not user.may(Role.REVIEWER):
        notes.append(wording("review.viewer"))
    elif current.state is ReviewState.APPROVED:
        notes.append(wording("review.withdraw"))
    elif current.state is ReviewState.REJECTED:
        notes.append(wording("review.settled"))
    elif _has_approved(current, user):
        notes.append(wording("review.own_approval"))
    return tuple(notes)


def _event(wording: Wording, case: ReviewCase, event: ReviewEvent) -> EventView:
    here = event.decision_id == case.verdict.decision_id
    return EventView(
        review_id=event.review_id,
        when=wording.short_moment(event.reviewed_at),
        who=printable(event.reviewer, _LONGEST_NAME),
        what=wording(f"event.{event.action.value}"),
        why=printable(event.reason, _LONGEST_REASON),
        until=wording.short_moment(event.expires_at) if event.expires_at else "",
        elsewhere="" if here else event.decision_id,
    )
