"""`HttpRequest`: one request to an image server, as a proxy shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Message(StrEnum):
    """What a client sends in a WebSocket, or in a stream of gRPC."""

    NONE = ""
    """Nothing: a request of HTTP."""
    TEXT = "text"
    BINARY = "binary"
    GRPC = "grpc"
    """One message of a stream, with its prefix."""


@dataclass(frozen=True)
class HttpRequest:
    """What an extractor looks at.

    Attributes:
        method: in capitals.
        path: as it stands in the request line, without the query, still percent-encoded.
        query: what follows the question mark, still encoded; empty without one.
        headers: names in lower case; values of repeated headers joined by ", ".
        body: as it was sent, before any content or transfer coding is undone.
        body_complete: False when the proxy cut the body off. Nothing can be said of a part.
        message: set where the body is a message that a client sends in the WebSocket, or the
            stream, which this request has opened. Nothing that comes in by HTTP sets it.
    """

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    body_complete: bool = True
    message: Message = Message.NONE

    def header(self, name: str) -> str:
        """A header's value, empty where it is missing."""
        return self.headers.get(name.lower(), "")


def is_length(text: str) -> bool:
    """Whether a header's value is a number of bytes: digits of ASCII, 18 at most.

    Other digits have values to Python too, and thousands of digits it refuses to read.
    """
    return text.isascii() and text.isdigit() and len(text) <= 18
