"""Who is calling, and what may they do."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from types import MappingProxyType

from loragate_server.config.listen import (
    EVERYTHING,
    ORDINARY,
    GrpcPort,
    Permission,
    is_loopback,
)
from loragate_server.errors import ErrorReason, NoDecisionError

IDENTITY: ContextVar[str] = ContextVar("identity", default="")
"""Authenticated name of the caller of the running call; empty without authentication."""

HOST: ContextVar[str] = ContextVar("host", default="")
"""Host from which the running call comes."""

SEES_SCORES: ContextVar[bool] = ContextVar("sees_scores", default=False)
"""Whether the caller of the running call may see measured numbers."""

AUTHORIZATION = "envoy.service.auth.v3.Authorization"
EXTERNAL_PROCESSOR = "envoy.service.ext_proc.v3.ExternalProcessor"

_AUDITS = "/loragate.v1.AuditService/"
_CONCEPTS = "/loragate.v1.ConceptService/"

METHODS: Mapping[str, Permission] = MappingProxyType(
    {
        f"{_AUDITS}Audit": Permission.AUDIT,
        f"{_AUDITS}AuditUpload": Permission.AUDIT,
        f"{_AUDITS}WatchAudit": Permission.AUDIT,
        f"{_AUDITS}GetAudit": Permission.READ,
        f"{_AUDITS}ListAudits": Permission.READ,
        f"{_CONCEPTS}ListConcepts": Permission.READ,
        f"{_CONCEPTS}GetConcept": Permission.READ,
        f"{_CONCEPTS}CreateConcept": Permission.CONCEPTS,
        f"{_CONCEPTS}DeleteConcept": Permission.CONCEPTS,
    }
)
"""The permission that each method of the API needs."""

_PROXY_METHODS = frozenset({f"/{AUTHORIZATION}/Check", f"/{EXTERNAL_PROCESSOR}/Process"})
"""Methods of Envoy's protocols."""

WITH_FILES = frozenset({f"{_AUDITS}Audit", f"{_AUDITS}WatchAudit"})
"""Methods whose one message may carry whole adapters."""

Peer = Mapping[str, Iterable[bytes]]
"""What gRPC knows of the other side's certificate."""

_SPIFFE_ID = "peer_spiffe_id"
_OTHER_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "x509_subject_alternative_name": "alternative name",
        "x509_common_name": "common name",
    }
)
"""Keys of grpc's authentication context, in the order in which names are looked for."""

_OPEN_SERVICE = "/grpc.health.v1.Health/"
_REFLECTION = "/grpc.reflection."
_BEARER = "bearer "


def is_open(method: str) -> bool:
    """Whether anybody may call the method at any time: health checks only."""
    return method.startswith(_OPEN_SERVICE)


def is_upload(method: str) -> bool:
    """Whether the method takes a file in pieces."""
    return method == f"{_AUDITS}AuditUpload"


def answers_while_draining(method: str) -> bool:
    """Whether the method has answers of its own for a server that takes no new work.

    Proxies may be told to let requests pass when a call fails, so their calls do not fail.
    """
    return method in _PROXY_METHODS


class Access:
    """Checks callers against the settings.

    Args:
        port: the settings.
        http: for the HTTP port, which has neither TLS nor client certificates. Where strangers can
            reach it, callers need a token even if those of the gRPC port show something else.

    Attributes:
        anonymous: whether it lets in who shows nothing, as only this machine can reach the port.
    """

    def __init__(self, port: GrpcPort, *, http: bool = False) -> None:
        local = is_loopback(port.listen.http) if http else port.on_loopback
        strangers = http and not local and not port.insecure_off_loopback
        self._required = port.authenticates or strangers
        self.anonymous = local and not self._required
        self._tokens = port.tokens
        self._peers = {peer.identity: peer.permissions for peer in port.peers}
        # Whoever is on this machine can read the record itself; a stranger cannot.
        unseen = frozenset() if local else {Permission.SCORES}
        self._anybody = EVERYTHING - unseen
        self._http = http

    def require(
        self, method: str, authorization: str, peer: Callable[[], Peer]
    ) -> tuple[str, frozenset[Permission]]:
        """The caller's name and permissions, if it may call the method.

        Args:
            method: "/package.Service/Method".
            authorization: value of the metadata key of that name; empty without one.
            peer: gives grpc's authentication context; asked where no token names the caller.

        Raises:
            NoDecisionError: UNAUTHENTICATED or PERMISSION_DENIED.
        """
        identity, permissions = self._identify(authorization, peer)
        needed = _needed(method)
        if needed is None or needed not in permissions:
            raise NoDecisionError(
                ErrorReason.PERMISSION_DENIED,
                f"{identity or 'The caller'} may not call {method}.",
                remedy=f"Have the permission {needed!s} granted in the server's settings."
                if needed
                else "Call a method that the API describes.",
                metadata={"method": method},
            )
        return identity, permissions

    def require_token(self, authorization: str, needed: Permission) -> str:
        """The name of a token's holder, if it may do what is needed; empty without tokens.

        For a port without client certificates.

        Raises:
            NoDecisionError: UNAUTHENTICATED or PERMISSION_DENIED.
        """
        if not self._tokens:
            return ""
        identity, permissions = self._holder(authorization)
        if needed not in permissions:
            raise NoDecisionError(
                ErrorReason.PERMISSION_DENIED,
                f"{identity} lacks the permission {needed!s}.",
                remedy=f"Have the permission {needed!s} granted in the server's settings.",
            )
        return identity

    def _identify(
        self, authorization: str, peer: Callable[[], Peer]
    ) -> tuple[str, frozenset[Permission]]:
        if authorization and self._tokens:
            return self._holder(authorization)
        name = peer_name(peer())
        if name:
            return name, self._peers.get(name, ORDINARY)
        if not self._required:
            return "", self._anybody
        if not self._http:
            raise _unauthenticated("The call carries neither token nor client certificate.")
        if self._tokens:
            raise _unauthenticated(
                "The call carries no token.", "Send 'Authorization: Bearer TOKEN'."
            )
        raise _unauthenticated(
            "The HTTP port has no TLS, and the server knows no token.",
            "Set tokens, or use gRPC.",
        )

    def _holder(self, authorization: str) -> tuple[str, frozenset[Permission]]:
        if not authorization.lower().startswith(_BEARER):
            raise _unauthenticated("The authorization is not of the form 'Bearer TOKEN'.")
        token = authorization[len(_BEARER) :].strip()
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
        found = None
        # Compares with all, whatever is found: the time must not tell which one is near.
        for grant in self._tokens:
            if hmac.compare_digest(grant.sha256, digest):
                found = grant
        if found is None:
            raise _unauthenticated("The token is not known.")
        return found.name, found.permissions


def _needed(method: str) -> Permission | None:
    """The permission that a method needs; None where there is no such method."""
    if method in _PROXY_METHODS:
        return Permission.CHECK
    return Permission.READ if method.startswith(_REFLECTION) else METHODS.get(method)


def peer_name(peer: Peer) -> str:
    """The name in a verified client certificate: SPIFFE id, else alternative or common name.

    Raises:
        NoDecisionError: UNAUTHENTICATED for a name that looks like a SPIFFE id and is none: an
            authority that issues those may let others write into a common name what they like.
    """
    for spiffe_id in peer.get(_SPIFFE_ID, ()):
        return spiffe_id.decode("utf-8", "replace")
    for key, kind in _OTHER_NAMES.items():
        for value in peer.get(key, ()):
            name = value.decode("utf-8", "replace")
            if name.strip().casefold().startswith("spiffe:"):
                raise _unauthenticated(
                    f"The {kind} {name[:200]!r} of the client certificate is no SPIFFE id.",
                    "Use a certificate that has the id as its only alternative name of type URI.",
                )
            return name
    return ""


def _unauthenticated(
    message: str,
    remedy: str = "Send 'authorization: Bearer TOKEN' metadata, or a client certificate.",
) -> NoDecisionError:
    return NoDecisionError(ErrorReason.UNAUTHENTICATED, message, remedy=remedy)
