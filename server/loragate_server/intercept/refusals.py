"""How extractors refuse: one constructor per cause, and places that are safe to show."""

from __future__ import annotations

import re

from loragate_server.intercept.extraction import RefusalCode, RefusedRequestError

Location = tuple[str | int, ...]
"""Where a value stands in a JSON document: names of members and numbers of items."""

_MAX_NAME_CHARS = 40
_UNSHOWABLE = re.compile(r"[^A-Za-z0-9_.:() -]")


def place_of(*parts: str | int) -> str:
    """A location for people. Names come from the sender, so they are cut short and made plain."""
    return "".join(f"/{_UNSHOWABLE.sub('?', str(part)[:_MAX_NAME_CHARS])}" for part in parts)


def unreadable(message: str, remedy: str) -> RefusedRequestError:
    """The body is not what the server would read."""
    return RefusedRequestError(RefusalCode.BODY_UNREADABLE, message, remedy=remedy)


def binary_message(path: str) -> RefusedRequestError:
    """A message in a WebSocket whose clients send texts alone."""
    return unreadable(
        f"The message is binary, and what clients send to {path} is text.",
        "Send the message as text.",
    )


def incomplete(message: str, remedy: str) -> RefusedRequestError:
    """A part of the body is missing."""
    return RefusedRequestError(RefusalCode.BODY_INCOMPLETE, message, remedy=remedy)


def ambiguous_body(message: str, remedy: str) -> RefusedRequestError:
    """Two readers of the body may see two different things."""
    return RefusedRequestError(RefusalCode.BODY_AMBIGUOUS, message, remedy=remedy)


def reading_too_long(limit_s: float) -> RefusedRequestError:
    """To find out what the request loads takes more time than anybody gives it."""
    return RefusedRequestError(
        RefusalCode.READING_TOO_LONG,
        f"To read the request takes more than {limit_s:g} s of processor time.",
        remedy="Send a smaller or simpler one, or raise intercept.reading_s.",
    )


def unnamed(place: str, why: str, remedy: str) -> RefusedRequestError:
    """An adapter is loaded, but the request does not say which bytes it has."""
    return RefusedRequestError(RefusalCode.ADAPTER_UNNAMED, f"{place} {why}", remedy=remedy)


def ambiguous_adapter(place: str, why: str, remedy: str) -> RefusedRequestError:
    """The request says more than one thing about an adapter, or what an audit cannot take in."""
    return RefusedRequestError(RefusalCode.ADAPTER_AMBIGUOUS, f"{place} {why}", remedy=remedy)


def door_closed(message: str, remedy: str) -> RefusedRequestError:
    """Weights would come in by a way that is not audited."""
    return RefusedRequestError(RefusalCode.DOOR_CLOSED, message, remedy=remedy)


def route_unknown(message: str, remedy: str) -> RefusedRequestError:
    """Nobody can say which route of the server this request reaches."""
    return RefusedRequestError(RefusalCode.ROUTE_UNKNOWN, message, remedy=remedy)


def route_unlisted(message: str, remedy: str) -> RefusedRequestError:
    """The extractor does not know the route, and the request changes something."""
    return RefusedRequestError(RefusalCode.ROUTE_UNLISTED, message, remedy=remedy)


def upgrade_refused(message: str, remedy: str) -> RefusedRequestError:
    """The connection would leave HTTP for a protocol that nobody reads."""
    return RefusedRequestError(RefusalCode.UPGRADE_REFUSED, message, remedy=remedy)
