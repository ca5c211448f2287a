"""The form of a review, as it was sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from loragate_server.record.reviews.review import ReviewAction

ACTION, REASON, EXPIRES, POSITION = "action", "reason", "expires", "position"


@dataclass(frozen=True)
class Form:
    """What a reviewer has typed, so that a refused form comes back as it was."""

    action: str = ""
    reason: str = ""
    expires: str = ""


@dataclass(frozen=True)
class Filled:
    """A form that can be acted on.

    Attributes:
        position: how many events the reviewer saw.
        expires_at: end of an approval; None for other actions, and where the day cannot be read.
    """

    action: ReviewAction
    reason: str
    position: int
    expires_at: datetime | None
    typed: Form


@dataclass(frozen=True)
class Problem:
    """A form that says too little; `code` is a key of the wording below "refused"."""

    code: str
    form: Form


def read_form(fields: Mapping[str, object], longest: timedelta) -> Filled | Problem:
    """Reads the fields that were sent; whether they can be obeyed is for `Reviews` to say.

    Args:
        fields: of the form; a file where text belongs counts as nothing.
        longest: life of an approval; the end of the last possible day is cut off there.
    """
    texts = {name: value for name, value in fields.items() if isinstance(value, str)}
    # Browsers send line ends in two characters, and count one: the reason must not grow by that.
    reason = texts.get(REASON, "").replace("\r\n", "\n")
    typed = Form(texts.get(ACTION, ""), reason, texts.get(EXPIRES, "").strip())
    if typed.action not in list(ReviewAction):
        return Problem("action_missing", typed)
    action = ReviewAction(typed.action)
    position = texts.get(POSITION, "")
    if not (position.isascii() and position.isdecimal() and len(position) < 10):
        return Problem("stale", typed)
    now = datetime.now(UTC)
    expires_at = _end(typed.expires, now + longest) if action is ReviewAction.APPROVE else None
    return Filled(action, reason, int(position), expires_at, typed)


def last_day(now: datetime, longest: timedelta) -> date:
    """The last day on which an approval that is given at `now` may end."""
    return (now + longest).astimezone(UTC).date()


def _end(day: str, latest: datetime) -> datetime | None:
    """The end of a day in UTC; on the last possible day `latest`, None for what is no day."""
    try:
        begin = datetime.combine(date.fromisoformat(day), time(), UTC)
        return latest if begin.date() == latest.date() else begin + timedelta(days=1)
    except (ValueError, OverflowError):
        return None
