"""How a client is set up: where the service is, how to trust it, and what to do without it."""

from __future__ import annotations

import ipaddress
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from loragate._names import IN_PYTHON, Names
from loragate._signed.keys import TrustedKeys
from loragate._target import DEFAULT_TARGET, check_target
from loragate.retries import RetryPolicy

TARGET_VARIABLE = "LORAGATE_TARGET"

CLOCK_SKEW_S = 30.0
"""Seconds by which clocks may be apart; machines that keep the time are within one."""

_MOST_CLOCK_SKEW_S = 3600

OnUnavailable = Literal["block", "allow", "raise"]
Token = str | Callable[[], str]


@dataclass(frozen=True)
class TlsConfig:
    """Certificates of the connection.

    Attributes:
        ca_file: certificates (PEM) that the server's must descend from; None for the system's.
        cert_file: own certificate chain (PEM), for mutual TLS.
        key_file: private key (PEM) of `cert_file`.
        server_name: name to expect in the server's certificate, where it differs from the target.

    Files that change on disk are picked up within seconds, by a new connection.
    """

    ca_file: str | os.PathLike[str] | None = None
    cert_file: str | os.PathLike[str] | None = None
    key_file: str | os.PathLike[str] | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError(
                "cert_file and key_file of tls (LORAGATE_TLS_CERT and LORAGATE_TLS_KEY) go "
                "together: set both, or neither."
            )

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that are set."""
        return tuple(Path(f) for f in (self.ca_file, self.cert_file, self.key_file) if f)

    def fingerprint(self) -> tuple[tuple[int, int, int], ...]:
        """Identity of the present content of the files, cheap enough to ask before a call."""
        stats = [file.stat() for file in self.files]
        return tuple((stat.st_ino, stat.st_size, stat.st_mtime_ns) for stat in stats)


@dataclass(frozen=True)
class ClientConfig:
    """Everything that both clients are made from. Built by their constructors.

    Attributes:
        token: bearer token, or a function that returns the present one, called for each call.
        timeout_s: deadline of every call that names none; None for the one of each method in
            the service config.
        on_unavailable: what `audit` does when no decision can be had because the service cannot
            be reached, has no room, or the deadline passed; see `AuditClient`.
        service, tenant: who asks, for the decision log.
        clock_skew_s: how far the clocks of client and service may be apart.
        names: what messages call the settings.
        require_signature: the keys by one of which every verdict has to be signed.
        accept_signed: folder with signed verdicts from elsewhere, which are believed as answers.
        retry: how often a call is made; None for what the service config says.
        interceptors: of gRPC, for every call.
    """

    target: str
    tls: TlsConfig | None = None
    token: Token | None = field(default=None, repr=False)
    timeout_s: float | None = None
    on_unavailable: OnUnavailable = "block"
    service: str = ""
    tenant: str = ""
    clock_skew_s: float = CLOCK_SKEW_S
    names: Names = field(default=IN_PYTHON, repr=False)
    require_signature: TrustedKeys | None = None
    accept_signed: Path | None = None
    retry: RetryPolicy | None = None
    interceptors: tuple[Any, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        check_target(self.target, self.names.target)
        if not 0 <= self.clock_skew_s <= _MOST_CLOCK_SKEW_S:
            raise ValueError(
                f"clock_skew is 0 to {_MOST_CLOCK_SKEW_S} seconds, not {self.clock_skew_s!r}."
            )
        if self.on_unavailable not in ("block", "allow", "raise"):
            raise ValueError(
                f"on_unavailable must be 'block', 'allow' or 'raise', not {self.on_unavailable!r}."
            )
        if self.require_signature is not None and self.on_unavailable == "allow":
            raise ValueError(
                "require_signature lets in nothing without a signature, and on_unavailable='allow' "
                "lets in without a decision. Choose 'block' or 'raise', or require no signature."
            )
        if self.accept_signed is not None and self.require_signature is None:
            raise ValueError(
                "accept_signed needs to know whose signatures are believed. Name the public keys "
                "of the service in require_signature (LORAGATE_REQUIRE_SIGNATURE)."
            )
        check_timeout(self.timeout_s)
        if self.token is not None and self.tls is None and not stays_on_machine(self.target):
            raise ValueError(
                f"A token would travel to {self.target} in the clear. Speak TLS: set "
                f"{self.names.tls}, with the CA of the server by {self.names.ca}."
            )
        if isinstance(self.token, str):
            check_token(self.token, self.names.token)


def resolve_target(target: str | None) -> str:
    """The target given, else that of `LORAGATE_TARGET`, else the service on this machine."""
    return target or os.environ.get(TARGET_VARIABLE) or DEFAULT_TARGET


def check_interceptors(interceptors: tuple[Any, ...], kinds: tuple[type, ...]) -> None:
    """Refuses what gRPC would refuse only with the first call.

    Raises:
        ValueError: one is no interceptor of the client's kind.
    """
    for one in interceptors:
        if not isinstance(one, kinds):
            names = ", ".join(f"{kind.__module__}.{kind.__qualname__}" for kind in kinds)
            raise ValueError(
                f"{type(one).__name__} is no interceptor of this client. Derive it from {names}."
            )


def check_timeout(timeout_s: float | None) -> None:
    """Refuses a timeout that could never hold.

    Raises:
        ValueError: not a positive finite number of seconds.
    """
    if timeout_s is not None and not (math.isfinite(timeout_s) and timeout_s > 0):
        raise ValueError(f"A timeout is a positive number of seconds, not {timeout_s!r}.")


def check_token(token: str, name: str) -> None:
    """Refuses a token that no header can carry, without showing it.

    Raises:
        ValueError: it has other characters than visible ASCII, or the word that goes before it.
    """
    if token.lower().startswith("bearer "):
        raise ValueError(f"{name}: the token begins with 'Bearer', which is put before it anyway.")
    odd = next((place for place, one in enumerate(token, 1) if not "!" <= one <= "~"), None)
    if odd is not None:
        raise ValueError(
            f"{name}: character {odd} of the token is a space, a line break or no ASCII, which no "
            "header can carry. Give the token alone, on one line."
        )


def stays_on_machine(target: str) -> bool:
    """Whether a gRPC target names a Unix socket or a loopback address."""
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    address = target.removeprefix("dns:").removeprefix("ipv4:").removeprefix("ipv6:").lstrip("/")
    host = address.rsplit(":", 1)[0] if not address.endswith("]") else address
    host = host.strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
