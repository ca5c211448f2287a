"""The form of a review, as it was sent."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from multidict import MultiMapping

from loragate_server.record.reviews.review import ReviewAction

ACTION, REASON, EXPIRES, SEEN, USE = "action", "reason", "expires", "seen", "use"
_SEEN = re.compile(r"([0-9a-f]{64}):(0|[1-9][0-9]{0,8})", re.ASCII)
_MOST_SEEN = 100


@dataclass(frozen=True)
class Form:
    """What a reviewer has typed, so that a refused form comes back as it was.

    Attributes:
        left_out: keys of the uses that were offered and that an approval is not to cover.
    """

    action: str = ""
    reason: str = ""
    expires: str = ""
    left_out: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Filled:
    """A form that can be acted on.

    Attributes:
        seen: by key of each use on the page, how many events the reviewer saw.
        chosen: keys of the uses that an approval is to cover.
        expires_at: end of an approval; None for other actions, and where the day cannot be read.
    """

    action: ReviewAction
    reason: str
    seen: dict[str, int]
    chosen: frozenset[str]
    expires_at: datetime | None
    typed: Form


@dataclass(frozen=True)
class Problem:
    """A form that says too little; `code` is a key of the wording below "refused"."""

    code: str
    form: Form


def read_form(fields: MultiMapping[object], longest: timedelta) -> Filled | Problem:
    """Reads the fields that were sent; whether they can be obeyed is for `Reviews` to say.

    Args:
        fields: of the form; a file where text belongs counts as nothing.
        longest: life of an approval; the end of the last possible day is cut off there.
    """
    texts = {name: value for name, value in fields.items() if isinstance(value, str)}
    # Browsers send line ends in two characters, and count one: the reason must not grow by that.
    reason = texts.get(REASON, "").replace("\r\n", "\n")
    seen = _seen(texts.get(SEEN, ""))
    chosen = frozenset(one for one in fields.getall(USE, []) if isinstance(one, str))
    left_out = frozenset(seen or ()) - chosen
    typed = Form(texts.get(ACTION, ""), reason, texts.get(EXPIRES, "").strip(), left_out)
    if typed.action not in list(ReviewAction):
        return Problem("action_missing", typed)
    action = ReviewAction(typed.action)
    if seen is None:
        return Problem("stale", typed)
    now = datetime.now(UTC)
    expires_at = _end(typed.expires, now + longest) if action is ReviewAction.APPROVE else None
    return Filled(action, reason, seen, chosen, expires_at, typed)


def _seen(text: str) -> dict[str, int] | None:
    """Events by key of each use, as the page wrote them; None for anything else."""
    parts = text.split(" ", _MOST_SEEN)
    found = [_SEEN.fullmatch(part) for part in parts]
    if len(parts) > _MOST_SEEN or not all(found):
        return None
    return {one[1]: int(one[2]) for one in found if one}


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
