"""The section `events` of the configuration: who is told of what, and for how long it is tried."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from loragate_server.config.retention import Span
from loragate_server.config.section import Section

DEFAULT_SOURCE = "urn:loragate:server"
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})


class EventKind(StrEnum):
    """What others can be told of."""

    BLOCK = "decision.block"
    REVIEW = "decision.review"
    APPROVED = "ruling.approved"
    REJECTED = "ruling.rejected"
    REOPENED = "ruling.reopened"
    CALIBRATION_STALE = "calibration.stale"


class EventReceiver(Section):
    """An HTTP server that is told.

    Attributes:
        name: in metrics, in the log and for the command; never given to another receiver.
        url: that events are sent to by POST. Redirects are not followed.
        secret_file: one secret per line, as Standard Webhooks writes them: `whsec_` for HMAC, or
            `whsk_` for Ed25519. With each of them every event is signed. Read at each attempt.
        kinds: of which it is told.
        timeout_s: longest time of an attempt.
        give_up_after: an event that the receiver has been failing to take for so long is a dead
            letter; `forever` for never.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    url: Annotated[str, Field(max_length=2048)]
    secret_file: Path
    kinds: frozenset[EventKind] = frozenset(EventKind)
    timeout_s: Annotated[float, Field(gt=0, le=120, allow_inf_nan=False)] = 10.0
    give_up_after: Span = "1d"

    @field_validator("url")
    @classmethod
    def _address(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname)
            _ = parts.port
        except ValueError:
            usable = False
        if not usable or not value.isprintable() or " " in value:
            raise ValueError("it is no address like https://events.example.com/loragate")
        if parts.username is not None or parts.password is not None:
            raise ValueError(
                "it holds a name or a password, which would be shown; receivers know loragate by "
                "its signature"
            )
        if parts.fragment:
            raise ValueError("it has a fragment (#...), which is never sent; leave it out")
        return value

    @field_validator("kinds")
    @classmethod
    def _some(cls, value: frozenset[EventKind]) -> frozenset[EventKind]:
        if not value:
            raise ValueError("it is empty, so the receiver would never be told of anything")
        return value

    @property
    def plain(self) -> bool:
        """Whether what is sent can be read on a network."""
        parts = urlsplit(self.url)
        return parts.scheme == "http" and parts.hostname not in _LOCAL


class EventsSection(Section):
    """Whom others are told through. Needs the extra `events`.

    Attributes:
        receivers: replicas that share a database name the same ones.
        source: name of this service in what it sends, a URI; one for all replicas.
        scores: whether events hold what was measured, which tells a maker of adapters how near to
            a limit he was.
    """

    receivers: Annotated[tuple[EventReceiver, ...], Field(max_length=32)] = ()
    source: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9+.-]*:\S+$", max_length=512)] = (
        DEFAULT_SOURCE
    )
    scores: bool = False

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [one.name for one in self.receivers]
        if len(set(names)) != len(names):
            raise ValueError(f"receivers has a name twice: {', '.join(sorted(names))}")
        return self
