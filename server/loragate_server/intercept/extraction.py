"""`Extraction`: what an extractor found in a request, and how an extractor says what it cannot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from loragate_server.adapter.reference import AdapterReference
from loragate_server.intercept.request import HttpRequest


class RefusalCode(StrEnum):
    """Why a request is refused before any adapter is looked at."""

    BODY_INCOMPLETE = "body_incomplete"
    BODY_UNREADABLE = "body_unreadable"
    BODY_AMBIGUOUS = "body_ambiguous"
    ADAPTER_UNNAMED = "adapter_unnamed"
    ADAPTER_AMBIGUOUS = "adapter_ambiguous"
    DOOR_CLOSED = "door_closed"
    ROUTE_UNKNOWN = "route_unknown"


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
        base_model: the model that the request is for, where it says so; empty otherwise.
    """

    adapters: tuple[AdapterReference, ...] = ()
    places: tuple[str, ...] = ()
    base_model: str = ""


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


class Extractor(Protocol):
    """Knows one kind of image server. Looks at names of files, opens none, and keeps nothing."""

    @property
    def name(self) -> str:
        """As in the configuration, for example "sglang"."""
        ...

    def extract(self, request: HttpRequest) -> Extraction:
        """Finds every adapter that the request makes the image server load.

        A route that cannot load an adapter gives an empty extraction; one that may in a way that
        cannot be audited is refused.

        Raises:
            RefusedRequestError: the request must not pass.
        """
        ...

    def rewrite(self, request: HttpRequest, paths: Mapping[int, str]) -> bytes | None:
        """The body with adapter number `i` of the extraction replaced by the file `paths[i]`.

        What is not replaced stays as it was, byte for byte where the format allows it. None where
        this server cannot be told to load another file by the body.
        """
        ...

    def deny(self, status: int, code: str, message: str, decision_id: str) -> Denial:
        """The answer as this server's clients expect an error, with the decision's id."""
        ...
