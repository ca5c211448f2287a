"""Where the server listens, and who may call it."""

from __future__ import annotations

import ipaddress
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from loragate_server.config.section import MIB, Positive, PositiveSeconds, Section

MESSAGE_BYTES = 4 * MIB
"""Of one gRPC message in either direction, where nothing needs more."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Permission(StrEnum):
    """What a caller may do."""

    AUDIT = "audit"
    """Ask for decisions."""
    READ = "read"
    """See recorded decisions and the concept library."""
    CONCEPTS = "concepts"
    """Change the concept library."""
    CHECK = "check"
    """Ask, as a proxy, whether a request may pass."""
    SCORES = "scores"
    """See the numbers that audits measure, which help whoever changes a file until it passes."""


EVERYTHING = frozenset(Permission)
ORDINARY = frozenset({Permission.AUDIT, Permission.READ})


def split_address(address: str) -> tuple[str, int]:
    """Splits `host:port` or `[ipv6]:port`.

    Raises:
        ValueError: no host, no port, or a port beyond 65535.
    """
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{address!r} is not an address like 127.0.0.1:50051")
    return host, int(port)


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach `address`."""
    if address.startswith("unix:"):
        return True
    host, _ = split_address(address)
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Listen(Section):
    """Where the server listens. Port 0 lets the system choose.

    Attributes:
        max_concurrent_calls: calls beyond, over gRPC and as JSON together, are refused at once, but
            for health checks; calls that owe a message make room first.
        max_uploads_per_caller: uploads that one caller may have on their way in.
        max_connections: connections beyond, on either port, make idle ones end or are refused;
            less where the process may not open so many files.
        idle_timeout_s: a peer that owes bytes and sends none for so long is given up.
        upload_timeout_s: an upload that is not complete after so long is given up.
        connection_age_s: age at which a client connects anew, so that it finds new replicas.
    """

    grpc: str = "127.0.0.1:50051"
    http: str = "127.0.0.1:9464"
    max_concurrent_calls: Positive = 512
    max_uploads_per_caller: Positive = 64
    max_connections: Positive = 1024
    idle_timeout_s: PositiveSeconds = 30.0
    upload_timeout_s: PositiveSeconds = 600.0
    connection_age_s: PositiveSeconds | None = None

    @field_validator("grpc")
    @classmethod
    def _grpc_address(cls, value: str) -> str:
        if value.startswith("unix:"):
            if not value.removeprefix("unix:"):
                raise ValueError("a unix address needs a path: unix:/run/loragate.sock")
            return value
        split_address(value)
        return value

    @field_validator("http")
    @classmethod
    def _http_address(cls, value: str) -> str:
        split_address(value)
        return value


class Tls(Section):
    """Certificates of the gRPC port; read again when the files change.

    Attributes:
        client_ca: when set, every client has to show a certificate signed by it.
    """

    cert: Path
    key: Path
    client_ca: Path | None = None


class Token(Section):
    """A bearer token, known only by its sha256, and what its holder may do."""

    name: str = Field(min_length=1, max_length=128)
    sha256: Sha256
    permissions: frozenset[Permission] = ORDINARY


class Peer(Section):
    """What the holder of a client certificate may do, where that differs from a token's default.

    Attributes:
        identity: SPIFFE id, else subject alternative name, else common name. What begins with
            `spiffe:` is the id of a certificate alone, never another name of one.
    """

    identity: str = Field(min_length=1, max_length=512)
    permissions: frozenset[Permission]


class GrpcPort(Section):
    """The gRPC port and its callers: the part of the configuration that decides who gets in.

    Attributes:
        tokens: bearer tokens; when there are any, a caller without certificate needs one.
        peers: client certificates with permissions of their own; others have those of a token's
            default.
        insecure_off_loopback: listen on other addresses without TLS and authentication.
    """

    listen: Listen = Listen()
    tls: Tls | None = None
    tokens: tuple[Token, ...] = ()
    peers: tuple[Peer, ...] = ()
    insecure_off_loopback: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self._require_guarded()
        return self

    def _require_guarded(self) -> None:
        """Refuses what would leave the port open to strangers."""
        if len({token.sha256 for token in self.tokens}) != len(self.tokens):
            raise ValueError("tokens holds the same sha256 twice")
        guarded = self.tls is not None and self.authenticates
        if not (self.insecure_off_loopback or self.on_loopback or guarded):
            raise ValueError(
                f"listen.grpc {self.listen.grpc} is not on loopback and needs tls, and tokens or "
                "tls.client_ca; insecure_off_loopback: true overrides this"
            )

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach the port."""
        return is_loopback(self.listen.grpc)

    @property
    def authenticates(self) -> bool:
        """Whether callers have to prove who they are."""
        return bool(self.tokens) or (self.tls is not None and self.tls.client_ca is not None)
