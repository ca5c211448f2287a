"""`ImageServer`: what the extractors of all image servers have in common."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from loragate_server.intercept.extraction import Denial, Extraction
from loragate_server.intercept.reading.bodies import (
    BodyLimits,
    coded_again,
    content_coding,
    plain_bytes,
)
from loragate_server.intercept.reading.findings import Findings, rewritten
from loragate_server.intercept.refusals import door_closed
from loragate_server.intercept.request import HttpRequest
from loragate_server.intercept.routes import Hit, Route, find_route

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
    """

    kind: ClassVar[str]
    routes: ClassVar[tuple[Route, ...]] = ()

    label: str = ""
    base_model: str = ""
    max_body_bytes: int = 64 * 1024 * 1024
    max_nesting: int = 100

    def __post_init__(self) -> None:
        if self.max_body_bytes < 1 or self.max_nesting < 1:
            raise ValueError("max_body_bytes and max_nesting must be at least 1.")

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

    def extract(self, request: HttpRequest) -> Extraction:
        """Finds every adapter that the request makes the image server load.

        A route that cannot load an adapter gives an empty extraction; one that may in a way that
        cannot be audited is refused.

        Raises:
            RefusedRequestError: the request must not pass.
        """
        findings = self._findings(request)
        return Extraction(
            tuple(one.reference for one in findings.found),
            tuple(one.place for one in findings.found),
            findings.base_model or self.base_model,
        )

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
        return body if content_coding(request) == "identity" else coded_again(body, request)

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

    def _findings(self, request: HttpRequest) -> Findings:
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
