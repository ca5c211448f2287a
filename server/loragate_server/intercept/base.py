"""`ImageServer`: what the extractors of all image servers have in common."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from loragate_server.intercept.extraction import Denial, Extraction
from loragate_server.intercept.passing import (
    DENY,
    MODES,
    SAFE,
    SOCKET,
    UPGRADE,
    PassedRoute,
    passed_routes,
    passes,
    shown,
    unlisted,
    unlisted_message,
)
from loragate_server.intercept.reading.bodies import (
    BodyLimits,
    coded_again,
    plain_bytes,
)
from loragate_server.intercept.reading.findings import Findings, rewritten
from loragate_server.intercept.refusals import binary_message, door_closed, upgrade_refused
from loragate_server.intercept.request import HttpRequest, Message
from loragate_server.intercept.routes import Hit, Route, check_line, find_route
from loragate_server.intercept.upgrades import PROTOCOL, check_handshake, is_upgrade

DECISION_HEADER = "x-loragate-decision-id"


@dataclass(frozen=True, kw_only=True)
class ImageServer(ABC):
    """An extractor: knows the guarded routes of one image server and looks into their requests.

    Pure: reads no file, asks nobody, keeps nothing.

    Attributes:
        label: the name in the configuration; empty for that of the kind.
        base_model: the base model that loragate knows the server's model as. It is not taken from
            requests, which could name one that the server does not run.
        max_body_bytes: the largest body that is read, compression undone.
        max_nesting: how deep JSON may be nested.
        unknown_routes: what becomes of a request that changes something by a route that the
            extractor does not know: "deny", "warn" (it passes and is counted) or "pass".
        passed_routes: further routes that pass with their bodies unread, written `POST /path`,
            with `*` for one segment and `**` for the rest; `UPGRADE /path` for a WebSocket whose
            messages load nothing.
        mounted_at: prefixes that stand before the server's own paths, as `/images`.
    """

    kind: ClassVar[str]
    routes: ClassVar[tuple[Route, ...]] = ()
    """Through which an adapter can come in: read, or refused."""
    passed: ClassVar[tuple[str, ...]] = ()
    """Which change something and load nothing, written as in `passed_routes`."""
    sockets: ClassVar[tuple[str, ...]] = ()
    """Paths of WebSockets whose clients send texts that are read, for doors that see them."""
    prefixes: ClassVar[tuple[str, ...]] = ()
    """Under which the server itself has its routes once more."""

    label: str = ""
    base_model: str = ""
    max_body_bytes: int = 32 * 1024 * 1024
    max_nesting: int = 100
    unknown_routes: str = DENY
    passed_routes: tuple[str, ...] = ()
    mounted_at: tuple[str, ...] = ()
    open_routes: tuple[PassedRoute, ...] = field(default=(), init=False, repr=False)

    def __post_init__(self) -> None:
        if self.max_body_bytes < 1 or self.max_nesting < 1:
            raise ValueError("max_body_bytes and max_nesting must be at least 1.")
        if self.unknown_routes not in MODES:
            raise ValueError(
                f"unknown_routes: {self.unknown_routes!r} is none of {', '.join(MODES)}."
            )
        if wrong := [one for one in self.mounted_at if not one.startswith("/")]:
            raise ValueError(f"mounted_at: {wrong[0]!r} does not begin with a slash.")
        try:
            made = passed_routes((*self.passed, *self.passed_routes))
        except ValueError as error:
            raise ValueError(f"passed_routes: {error}") from error
        read = (PassedRoute(SOCKET, tuple(one.strip("/").split("/"))) for one in self.sockets)
        object.__setattr__(self, "open_routes", (*made, *read))

    @property
    def name(self) -> str:
        """As in the configuration, for example "sglang"."""
        return self.label or self.kind

    @property
    def limits(self) -> BodyLimits:
        """How much of a body is read."""
        return BodyLimits(self.max_body_bytes, self.max_nesting)

    def guarded(self) -> tuple[Route, ...]:
        """The routes through which an adapter can come in."""
        return self.routes

    @abstractmethod
    def find(self, hit: Hit, request: HttpRequest) -> Findings:
        """The adapters of a request to a guarded route.

        Raises:
            RefusedRequestError: the request must not pass.
        """

    def find_message(self, request: HttpRequest) -> Findings:
        """The adapters of a client's message in one of `sockets`, or in a stream of gRPC.

        Raises:
            RefusedRequestError: the message must not pass.
        """
        raise unlisted_message(request, None, self.name)

    def extract(self, request: HttpRequest) -> Extraction:
        """Finds every adapter that the request makes the image server load.

        A route that cannot load an adapter gives an empty extraction; one that may in a way that
        cannot be audited is refused, and so is one that is not known and changes something.

        Raises:
            RefusedRequestError: the request must not pass.
        """
        settled = self.settle(request)
        if settled is not None:
            return settled
        findings = self._findings(request)
        return Extraction(
            tuple(one.reference for one in findings.found),
            tuple(one.place for one in findings.found),
            findings.base_model or self.base_model,
            tuple(one.holder for one in findings.found),
            findings.unlisted,
        )

    def settle(self, request: HttpRequest) -> Extraction | None:
        """What can be said before the body is there; None where it has to be read.

        A proxy must not wait for the body of a request that never ends, as an upgrade does.

        Raises:
            RefusedRequestError: the request must not pass, whatever its body is.
        """
        if request.message:
            return self._settle_message(request)
        if is_upgrade(request):
            self._check_upgrade(request)
            return Extraction()
        hit = find_route(request, self.guarded())
        if hit is not None:
            self.check_head(hit, request)
            return None
        method = request.method.upper()
        if method in SAFE or self._passes(request, method):
            return Extraction()
        if self.unknown_routes == DENY:
            raise unlisted(request, self.name)
        return Extraction(unlisted=self.unknown_routes)

    def reached(self, request: HttpRequest) -> str:
        """Why a request is read, or not, in a few words for people.

        Raises:
            RefusedRequestError: nobody can say which route it reaches.
        """
        if request.message:
            if self.opens_stream(request):
                return "a message in a stream that is read"
            read = self._passes(request, SOCKET)
            return "a message in a WebSocket that is read" if read else "a message that is not read"
        if is_upgrade(request):
            known = self._passes(request, UPGRADE)
            return "an upgrade by which nothing loads" if known else "an upgrade that is not known"
        hit = find_route(request, self.guarded())
        if hit is not None:
            return f"/{'/'.join(hit.route.pattern)}, by which adapters can come in"
        method = request.method.upper()
        if method in SAFE:
            return f"none by which adapters come in, and {method} only reads"
        return "one that loads nothing" if self._passes(request, method) else "one in no list"

    def check_head(self, hit: Hit, request: HttpRequest) -> None:  # noqa: B027
        """Refuses a request to a guarded route whose body must not be waited for.

        Raises:
            RefusedRequestError: it has no end, or no body that could be read.
        """

    def rewrite(self, request: HttpRequest, paths: Mapping[int, str]) -> bytes | None:
        """The body with adapter number `i` of the extraction replaced by the file `paths[i]`.

        What is not replaced stays as it was, byte for byte where the format allows it. None where
        this server cannot be told to load another file by the body.
        """
        findings = self._findings(request)
        plain = plain_bytes(request, self.limits)
        body = rewritten(findings, plain, paths) if paths else plain
        if body is None:
            return None
        return coded_again(body, request)

    def unless_adapter(self, place: str, holder: str) -> str:
        """What the operator can do where a file was taken for an adapter and is none; or nothing.

        Args:
            place: where it is named.
            holder: what names it there.
        """
        del place, holder
        return ""

    def deny(self, status: int, code: str, message: str, decision_id: str) -> Denial:
        """The answer as this server's clients expect an error, with the decision's id."""
        document = self.error(status, code, message, decision_id)
        return Denial(
            status,
            json.dumps(document).encode(),
            headers=((DECISION_HEADER, decision_id),),
        )

    def error(self, status: int, code: str, message: str, decision_id: str) -> dict[str, Any]:
        """The body of an error, as FastAPI servers send it unless a server says otherwise."""
        return {"detail": message, "code": code, "decision_id": decision_id}

    def opens_stream(self, request: HttpRequest) -> bool:
        """Whether a request opens a stream of gRPC, or is of one, whose messages can be read."""
        del request
        return False

    def open_socket(self, request: HttpRequest) -> None:
        """Whether a WebSocket or a stream may open, for a door that shows each of its messages.

        Raises:
            RefusedRequestError: it is not read even so, or is no opening of one.
        """
        check_line(request)
        if self.opens_stream(request):
            return
        if not self._passes(request, SOCKET):
            self._check_upgrade(request)
        check_handshake(request)

    def unlisted_as(self, request: HttpRequest, kind: object, known: Collection[str]) -> str:
        """How a message passes whose type is not known; see `Extraction.unlisted`.

        Raises:
            RefusedRequestError: ROUTE_UNLISTED; it does not.
        """
        if isinstance(kind, str) and kind in known:
            return ""
        if self.unknown_routes == DENY:
            raise unlisted_message(request, kind, self.name)
        return self.unknown_routes

    @property
    def opens_sockets(self) -> bool:
        """Whether there is any WebSocket that may open."""
        return any(one.method in (SOCKET, UPGRADE) for one in self.open_routes)

    def _check_upgrade(self, request: HttpRequest) -> None:
        check_line(request)
        if not self._passes(request, UPGRADE):
            raise self._unread_upgrade(request)
        check_handshake(request)

    def _unread_upgrade(self, request: HttpRequest) -> Exception:
        protocol = request.header("upgrade") or request.header(PROTOCOL) or "an upgrade"
        asked = f"{request.method} {shown(request.path)} asks for {shown(protocol)}, and"
        if self._passes(request, SOCKET):
            return upgrade_refused(
                f"{asked} what is sent after that is read by a relay alone.",
                f"Have the proxy send it to the relay of intercept.relays.{self.name}.",
            )
        return upgrade_refused(
            f"{asked} the extractor {self.name} does not read what is sent after that.",
            "Use the server's HTTP routes. If nothing that is sent there can load weights, name it "
            f"as UPGRADE /path in intercept.extractors.{self.name}.settings.passed_routes.",
        )

    def _settle_message(self, request: HttpRequest) -> Extraction | None:
        if request.message is Message.GRPC and self.opens_stream(request):
            return None
        if self._passes(request, SOCKET):
            if request.message is Message.BINARY:
                raise binary_message(shown(request.path))
            return None
        if not self._passes(request, UPGRADE):
            raise self._unread_upgrade(request)
        return Extraction()

    def _passes(self, request: HttpRequest, method: str) -> bool:
        prefixes = (*self.prefixes, *self.mounted_at)
        both = tuple(f"{mount}{own}" for mount in self.mounted_at for own in self.prefixes)
        return passes(request, method, self.open_routes, (*prefixes, *both))

    def _findings(self, request: HttpRequest) -> Findings:
        if request.message:
            return self.find_message(request)
        hit = find_route(request, self.guarded())
        return Findings() if hit is None else self.find(hit, request)


@dataclass(frozen=True, kw_only=True)
class ServerWithDoors(ImageServer):
    """An image server with routes that change weights in ways that cannot be audited.

    Attributes:
        allowed_doors: which of `doors` are left open.
    """

    doors: ClassVar[tuple[str, ...]]
    """Names of the routes."""
    instead: ClassVar[str]
    """What senders can do, for the refusal."""

    allowed_doors: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if unknown := set(self.allowed_doors) - set(self.doors):
            raise ValueError(
                f"allowed_doors: {sorted(unknown)[0]!r} is none of {', '.join(self.doors)}."
            )

    def is_open_door(self, hit: Hit) -> bool:
        """Whether a request comes to a door that is left open.

        Raises:
            RefusedRequestError: it comes to one that is not.
        """
        name = hit.route.name
        if name not in self.doors or name in self.allowed_doors:
            return name in self.doors
        raise door_closed(
            f"{name} changes weights without an audit.",
            f"{self.instead}, or open the door in allowed_doors.",
        )
