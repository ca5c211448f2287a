"""Page tokens: a place in the list of decisions, bound to the filters it was made for."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from loragate_server.errors import ErrorReason, NoDecisionError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_CHECK_BYTES = 8


@dataclass(frozen=True)
class Place:
    """The last decision of a page; the next page begins after it."""

    decided_at: datetime
    decision_id: str


def make_token(place: Place, filters: tuple[str, ...]) -> str:
    """An opaque token for the page after `place` under the same filters."""
    micros = (place.decided_at - _EPOCH) // _MICROSECOND
    body = json.dumps([micros, place.decision_id]).encode("ascii")
    return base64.urlsafe_b64encode(_check(body, filters) + body).decode("ascii").rstrip("=")


def read_token(token: str, filters: tuple[str, ...]) -> Place | None:
    """The place that a token stands for; None for the empty token.

    The check value finds damaged tokens and tokens of other filters. It guards no secret: whoever
    may list decisions may start at any place.

    Raises:
        NoDecisionError: PAGE_TOKEN_INVALID.
    """
    if not token:
        return None
    try:
        padded = token.encode("ascii") + b"=" * (-len(token) % 4)
        raw = base64.b64decode(padded, altchars=b"-_", validate=True)
        check, body = raw[:_CHECK_BYTES], raw[_CHECK_BYTES:]
        if check != _check(body, filters):
            raise ValueError("check value")
        micros, decision_id = json.loads(body)
        return Place(_EPOCH + micros * _MICROSECOND, str(decision_id))
    except (ValueError, TypeError, OverflowError, binascii.Error) as error:
        raise NoDecisionError(
            ErrorReason.PAGE_TOKEN_INVALID,
            "The page token is damaged, or belongs to a list with other filters.",
            remedy="Begin again with an empty page token.",
        ) from error


def _check(body: bytes, filters: tuple[str, ...]) -> bytes:
    text = json.dumps(["loragate audits", *filters]).encode("ascii")
    return hashlib.sha256(text + b"\0" + body).digest()[:_CHECK_BYTES]
