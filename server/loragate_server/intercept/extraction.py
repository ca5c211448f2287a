"""`Extraction`: what an extractor found in a request, and how an extractor says what it cannot."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from loragate_server.adapter.reference import AdapterReference


class RefusalCode(StrEnum):
    """Why a request is refused before any adapter is looked at."""

    BODY_INCOMPLETE = "body_incomplete"
    BODY_UNREADABLE = "body_unreadable"
    BODY_AMBIGUOUS = "body_ambiguous"
    READING_TOO_LONG = "reading_too_long"
    ADAPTER_UNNAMED = "adapter_unnamed"
    ADAPTER_AMBIGUOUS = "adapter_ambiguous"
    DOOR_CLOSED = "door_closed"
    ROUTE_UNKNOWN = "route_unknown"
    ROUTE_UNLISTED = "route_unlisted"
    UPGRADE_REFUSED = "upgrade_refused"


class RefusedRequestError(Exception):
    """A request must not pass, whatever its adapters are.

    Attributes:
        code: which kind of fault it is.
        message: one sentence that names the cause; never holds a value from the body that may be
            a secret.
        remedy: one sentence that says what the sender or the operator can do.
    """

    def __init__(self, code: RefusalCode, message: str, *, remedy: str) -> None:
        super().__init__(f"{message} {remedy}")
        self.code = code
        self.message = message
        self.remedy = remedy


@dataclass(frozen=True)
class Extraction:
    """What a request loads.

    Attributes:
        adapters: all that will be active together; empty for a request that loads none.
        places: for each adapter, where its reference stands, for people ("/prompt/3/inputs").
        holders: for each adapter, what names it, for people; empty where the place says all.
        base_model: the model that the request is for, where it says so; empty otherwise.
        unlisted: what lets the request pass although the extractor does not know its route and it
            changes something: "warn" or "pass"; empty for every other request.
    """

    adapters: tuple[AdapterReference, ...] = ()
    places: tuple[str, ...] = ()
    base_model: str = ""
    holders: tuple[str, ...] = ()
    unlisted: str = ""


@dataclass(frozen=True)
class Denial:
    """An answer in the place of the image server's.

    Attributes:
        status: HTTP status.
        content_type: of `body`.
        headers: further headers.
    """

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
