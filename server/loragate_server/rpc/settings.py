"""What the gRPC front can be told. Frozen, and free of any configuration library."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path


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


@dataclass(frozen=True)
class TokenGrant:
    """What the holder of a bearer token may do. The token itself is not kept.

    Attributes:
        name: identity of the holder in the decision log.
        sha256: lower-case hexadecimal digest of the token.
    """

    name: str
    sha256: str
    permissions: frozenset[Permission] = ORDINARY


@dataclass(frozen=True)
class PeerGrant:
    """What the holder of a client certificate may do.

    Attributes:
        identity: SPIFFE id, else subject alternative name, else common name, as in the
            certificate.
    """

    identity: str
    permissions: frozenset[Permission] = ORDINARY


@dataclass(frozen=True)
class TlsSettings:
    """Certificates, read again when the files change.

    Attributes:
        certificate: PEM chain of the server.
        key: PEM private key of the certificate.
        client_ca: PEM bundle; when set, every client has to show a certificate signed by it.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None


@dataclass(frozen=True)
class AuthSettings:
    """Who may do what.

    Attributes:
        tokens: bearer tokens; when there are any, a caller without certificate needs one.
        peers: client certificates with permissions of their own.
        other_peers: permissions of a verified client certificate that `peers` does not name.
    """

    tokens: tuple[TokenGrant, ...] = ()
    peers: tuple[PeerGrant, ...] = ()
    other_peers: frozenset[Permission] = ORDINARY


@dataclass(frozen=True)
class KeepaliveSettings:
    """How dead connections are found and long ones renewed. Seconds.

    Attributes:
        time_s: silence after which the server pings.
        timeout_s: time a ping may take.
        least_client_interval_s: clients that ping more often are disconnected.
        connection_age_s: age at which a client has to connect anew, so that it finds new replicas.
        connection_age_grace_s: time that calls on an old connection get to end.
    """

    time_s: float = 30.0
    timeout_s: float = 15.0
    least_client_interval_s: float = 10.0
    connection_age_s: float | None = None
    connection_age_grace_s: float = 60.0


@dataclass(frozen=True)
class RpcSettings:
    """Everything about the gRPC front.

    Attributes:
        addresses: "host:port", "[ipv6]:port" or "unix:/path"; port 0 lets the system choose.
        reflection: whether clients may ask for the API's description.
        insecure_off_loopback: listen on other addresses without TLS and authentication.
        max_message_bytes: of one message in either direction.
        max_concurrent_calls: calls beyond are refused at once.
        max_upload_bytes: of one uploaded file, checked against its header.
        drain_grace_s: how long calls in flight may go on after `stop`.
    """

    addresses: tuple[str, ...] = ("127.0.0.1:50051",)
    tls: TlsSettings | None = None
    auth: AuthSettings = field(default_factory=AuthSettings)
    keepalive: KeepaliveSettings = field(default_factory=KeepaliveSettings)
    reflection: bool = False
    insecure_off_loopback: bool = False
    max_message_bytes: int = 4 << 20
    max_concurrent_calls: int = 512
    max_upload_bytes: int = 2 << 30
    drain_grace_s: float = 20.0

    @property
    def authenticates(self) -> bool:
        """Whether callers have to prove who they are."""
        return bool(self.auth.tokens) or (self.tls is not None and self.tls.client_ca is not None)

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return all(is_loopback(address) for address in self.addresses)

    def check(self) -> None:
        """Refuses settings that would leave the port open to strangers.

        Raises:
            ValueError: an address off loopback lacks TLS or authentication.
        """
        if not self.addresses:
            raise ValueError("there is no address to listen on")
        if self.insecure_off_loopback or (self.tls is not None and self.authenticates):
            return
        for address in self.addresses:
            if not is_loopback(address):
                lacking = "TLS" if self.tls is None else "authentication"
                raise ValueError(
                    f"{address} is not on loopback and lacks {lacking}: give a certificate, and "
                    "tokens or a client CA, or set insecure_off_loopback"
                )


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach `address`; an unclear one counts as reachable."""
    if address.startswith(("unix:", "unix-abstract:")):
        return True
    host = address.rpartition(":")[0].removeprefix("[").removesuffix("]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
