"""The section `intercept` of the configuration: the doors for proxies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from loragate_server.config.listen import MESSAGE_BYTES, split_address
from loragate_server.config.section import MIB, Positive, PositiveSeconds, Section

ExtractorName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]


class ExtractorEntry(Section):
    """How the requests of one image server are read.

    Attributes:
        kind: which image server it is.
        settings: what the kind can be told.
    """

    kind: str = Field(min_length=1, max_length=64)
    settings: dict[str, Any] = Field(default={})


class RelayEntry(Section):
    """A port to which a proxy sends the WebSockets of one image server.

    Attributes:
        listen: address of the port.
        upstream: the image server, as http://HOST:PORT or https://HOST:PORT.
        rewrite: put the path of the audited copy into a message, as ext_proc does into a body.
        max_connections: further ones are refused.
        max_reply_bytes: of one message of the image server.
        open_timeout_s: in which a connection has to be open, with the image server's part.
        check_timeout_s: that the check of a message may take.
        message_timeout_s: in which a message that has begun has to be complete, in which a peer
            has to take one, and in which it has to answer a ping.
        close_timeout_s: in which a peer has to agree to an end.
        ping_interval_s: between pings.
        idle_timeout_s: after which a connection ends in which nobody has said anything.
    """

    listen: str
    upstream: str
    rewrite: bool = False
    max_connections: Positive = 256
    max_reply_bytes: Positive = 64 * MIB
    open_timeout_s: PositiveSeconds = 10.0
    check_timeout_s: PositiveSeconds = 30.0
    message_timeout_s: PositiveSeconds = 30.0
    close_timeout_s: PositiveSeconds = 5.0
    ping_interval_s: PositiveSeconds = 20.0
    idle_timeout_s: PositiveSeconds = 3600.0

    @field_validator("listen")
    @classmethod
    def _address(cls, value: str) -> str:
        split_address(value)
        return value

    @field_validator("upstream")
    @classmethod
    def _server(cls, value: str) -> str:
        _ = split_upstream(value)
        return value


class Upstream(NamedTuple):
    """Where an image server listens."""

    secure: bool
    host: str
    port: int


def split_upstream(value: str) -> Upstream:
    """The parts of http://HOST:PORT or https://HOST:PORT.

    Raises:
        ValueError: it is written otherwise.
    """
    parts = urlsplit(value)
    plain = f"{parts.scheme}://{parts.netloc}" == value.removesuffix("/")
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in value or not plain:
        raise ValueError(f"{value!r} is not written as http://HOST:PORT or https://HOST:PORT")
    secure = parts.scheme == "https"
    return Upstream(secure, parts.hostname, parts.port or (443 if secure else 80))


class InterceptSection(Section):
    """The doors for proxies that ask before they pass a request on.

    Attributes:
        extractors: by the name that proxies and metrics use.
        default_extractor: for proxies that name none; the only extractor when not set.
        dry_run: everything passes; log and metrics tell what would not have.
        on_review: what a request gets whose adapters need a person's look.
        max_body_bytes: larger bodies do not pass.
        reading_s: processor time that reading one request may take.
        http: answer `/v1/check` on the HTTP port.
        http_timeout_s: time that a check on the HTTP port may take.
        stream_timeout_s: time that the check of one message in a stream of gRPC may take.
        max_streams: streams of gRPC that may be open at once; further ones are refused.
        audited_root: the store of audited files as the image server sees it.
        keep_s: how long an audited file that may be loaded is not deleted.
        relays: ports for WebSockets, by the extractor that reads their messages.
    """

    extractors: dict[ExtractorName, ExtractorEntry] = Field(default={})
    default_extractor: str = ""
    dry_run: bool = False
    on_review: Literal["deny", "allow"] = "deny"
    max_body_bytes: Positive = 32 * MIB
    reading_s: PositiveSeconds = 2.0
    http: bool = False
    http_timeout_s: PositiveSeconds = 30.0
    stream_timeout_s: PositiveSeconds = 30.0
    max_streams: Positive = 128
    audited_root: Path | None = None
    keep_s: PositiveSeconds = 3600.0
    relays: dict[str, RelayEntry] = Field(default={})

    @property
    def chosen_extractor(self) -> str:
        """The extractor for proxies that name none; empty where there is no such thing."""
        if self.default_extractor or len(self.extractors) != 1:
            return self.default_extractor
        return next(iter(self.extractors))

    @property
    def review_passes(self) -> bool:
        """Whether a request passes whose adapters need a person's look."""
        return self.on_review == "allow"

    @property
    def message_bytes(self) -> int:
        """Room for the largest body that a proxy may show, and for all that it tells beside it."""
        if not self.extractors:
            return MESSAGE_BYTES
        return max(MESSAGE_BYTES, self.max_body_bytes + MIB)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        known = ", ".join(sorted(self.extractors)) or "none"
        if self.default_extractor and self.default_extractor not in self.extractors:
            raise ValueError(
                f"default_extractor {self.default_extractor!r} is not one of extractors: {known}"
            )
        if "none" in self.extractors:
            raise ValueError("no extractor can be named 'none'; metrics use it where there is none")
        if self.http and not self.extractors:
            raise ValueError("http needs extractors, which say how requests are read")
        for name in self.relays:
            if name not in self.extractors:
                raise ValueError(f"relays names {name!r}, which is not one of extractors: {known}")
        listens = [one.listen for one in self.relays.values() if not one.listen.endswith(":0")]
        if len(set(listens)) != len(listens):
            raise ValueError("two relays listen on the same address; each needs its own")
        if self.audited_root is not None and not self.audited_root.is_absolute():
            raise ValueError(f"audited_root {self.audited_root} is no absolute path")
        return self
