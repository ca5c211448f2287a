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
from loragate_server.intercept.request import HttpRequest
from loragate_server.intercept.routes import Hit, Route, find_route

DECISION_HEADER = "x-loragate-decision-id"


@dataclass(frozen=True, kw_only=True)
class ImageServer(ABC):
    """An extractor that knows the guarded routes of its server and looks into their requests.

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
        """As in the configuration."""
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
        """See `Extractor.extract`."""
        findings = self._findings(request)
        return Extraction(
            tuple(one.reference for one in findings.found),
            tuple(one.place for one in findings.found),
            findings.base_model or self.base_model,
        )

    def rewrite(self, request: HttpRequest, paths: Mapping[int, str]) -> bytes | None:
        """See `Extractor.rewrite`."""
        findings = self._findings(request)
        plain = plain_bytes(request, self.limits)
        body = rewritten(findings, plain, paths) if paths else plain
        if body is None:
            return None
        return body if content_coding(request) == "identity" else coded_again(body, request)

    def deny(self, status: int, code: str, message: str, decision_id: str) -> Denial:
        """See `Extractor.deny`."""
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
