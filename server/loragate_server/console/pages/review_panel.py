"""The review of an adapter, in words: its state, its uses, and what the reader may do."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from loragate_server.access.identity import Role, User
from loragate_server.console.pages.review_form import Form, last_day
from loragate_server.console.pages.review_uses import EventView, UseView, acts, use_view
from loragate_server.record.reviews.review import (
    FileCase,
    ReviewAction,
    ReviewState,
    Standing,
    standing,
)
from loragate_server.wording.wording import Wording

_SIGNS = {
    ReviewState.OPEN: ("REVIEW", "!"),
    ReviewState.AWAITING_SECOND: ("REVIEW", "½"),
    ReviewState.APPROVED: ("ALLOW", "✓"),
    ReviewState.REJECTED: ("BLOCK", "✕"),
    ReviewState.EXPIRED: ("INCONCLUSIVE", "⌛"),
}
_USUAL_APPROVAL = timedelta(days=30)
_BEGUN = (ReviewState.APPROVED, ReviewState.AWAITING_SECOND, ReviewState.REJECTED)


@dataclass(frozen=True)
class Panel:
    """What the page shows of a review.

    Attributes:
        tone, sign: colour and sign of the state, those of the verdict that it leads to.
        notes: sentences that explain what holds.
        uses: what is reviewed together; `more` uses of the file are not listed.
        actions: what the reader may do; empty where there is no form.
        seen: the uses that the reader sees, with the number of their events; sent along.
        expires, last_day: what the field for the end of an approval holds, and its bound.
    """

    reviewable: bool
    state: str
    tone: str
    sign: str
    asked: int
    notes: tuple[str, ...]
    uses: tuple[UseView, ...]
    more: int
    events: tuple[EventView, ...]
    actions: tuple[str, ...]
    seen: str
    typed: Form
    first_day: str
    expires: str
    last_day: str

    @property
    def approvable(self) -> bool:
        """Whether the form has a field for the end of an approval."""
        return ReviewAction.APPROVE in self.actions


def panel(wording: Wording, case: FileCase, user: User, longest: timedelta, typed: Form) -> Panel:
    """Puts a review into words.

    Args:
        wording: of the language.
        case: what is reviewed together.
        user: whoever reads the page.
        longest: life of an approval.
        typed: what the form held when it was refused; empty for a fresh one.
    """
    now = datetime.now(UTC)
    state = ReviewState.REJECTED if case.rejected else case.looked_at.state
    tone, sign = _SIGNS[state]
    last = last_day(now, longest)
    usual = min(last, (now + _USUAL_APPROVAL).date())
    offered = _approvable(case, user, now)
    looked_at = case.looked_at.verdict.decision_id
    return Panel(
        reviewable=case.looked_at.reviewable,
        state=wording(f"state.{state.value}"),
        tone=tone,
        sign=sign,
        asked=sum(use.review.asked for use in case.uses),
        notes=_notes(wording, case, user, now),
        uses=tuple(
            use_view(
                wording, use, looked_at, offered=use.subject_key in offered,
                left_out=use.subject_key in typed.left_out,
            )
            for use in case.uses
        ),
        more=case.more,
        events=acts(wording, case),
        actions=_actions(case, offered, user),
        seen=" ".join(f"{use.subject_key}:{len(use.review.events)}" for use in case.uses),
        typed=typed,
        first_day=now.date().isoformat(),
        expires=typed.expires or usual.isoformat(),
        last_day=last.isoformat(),
    )  # fmt: skip


def _approvable(case: FileCase, user: User, now: datetime) -> frozenset[str]:
    """Keys of the uses that an approval of the reader could cover."""
    if case.rejected or not user.may(Role.REVIEWER):
        return frozenset()
    return frozenset(
        use.subject_key
        for use in case.uses
        if use.review.state is not ReviewState.APPROVED
        and not _has_approved(standing(use.review.events, now), user)
    )


def _actions(case: FileCase, offered: frozenset[str], user: User) -> tuple[str, ...]:
    """What the reader may do now. The recorder decides; this only spares people dead ends."""
    if not case.looked_at.reviewable or not user.may(Role.REVIEWER):
        return ()
    begun = bool(case.rejected or case.past) or any(use.review.state in _BEGUN for use in case.uses)
    possible = (
        (ReviewAction.APPROVE, bool(offered)),
        (ReviewAction.REJECT, not case.rejected),
        (ReviewAction.REOPEN, begun and user.may(Role.ADMIN)),
    )
    return tuple(action.value for action, allowed in possible if allowed)


def _has_approved(current: Standing, user: User) -> bool:
    return any(name.casefold() == user.name.casefold() for name in current.approvers)


def _notes(wording: Wording, case: FileCase, user: User, now: datetime) -> tuple[str, ...]:
    one = case.looked_at
    if not one.reviewable:
        return (wording("review.not_reviewable"),)
    current, notes = standing(one.events, now), []
    if current.state is ReviewState.APPROVED and current.expires_at and not case.rejected:
        notes.append(wording("review.until", time=wording.moment(current.expires_at)))
    severe = any(use.review.needs_second for use in case.uses)
    notes.append(wording("review.four_eyes" if severe else "review.one_person"))
    notes.append(wording("review.scope"))
    if not user.may(Role.REVIEWER):
        notes.append(wording("review.viewer"))
    elif case.rejected:
        notes.append(wording("review.settled"))
    elif current.state is ReviewState.APPROVED:
        notes.append(wording("review.withdraw"))
    elif _has_approved(current, user):
        notes.append(wording("review.own_approval"))
    return tuple(notes)
