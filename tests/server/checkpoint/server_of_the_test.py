"""A small image server's requests: `POST /load {"lora": FILE, "strength": 1.0}`, and the rest.

`also` names further strengths, and `optional` says that the server may leave the adapter out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from loragate_server.adapter.reference import AdapterReference, Strength
from loragate_server.intercept.base import ImageServer
from loragate_server.intercept.extraction import (
    Denial,
    Extraction,
    RefusalCode,
    RefusedRequestError,
)
from loragate_server.intercept.reading.findings import Findings
from loragate_server.intercept.request import HttpRequest
from loragate_server.intercept.routes import Hit


@dataclass(frozen=True, kw_only=True)
class PlainServer(ImageServer):
    """The extractor of that server, which knows all its requests and so needs no routes."""

    kind: ClassVar[str] = "plain"

    def find(self, hit: Hit, request: HttpRequest) -> Findings:
        raise NotImplementedError

    def extract(self, request: HttpRequest) -> Extraction:
        settled = self.settle(request)
        if settled is not None:
            return settled
        if request.path == "/merge":
            raise RefusedRequestError(
                RefusalCode.DOOR_CLOSED, "Merging cannot be audited.", remedy="Use /load."
            )
        if request.path == "/fault":
            raise KeyError(request.body.decode())
        if request.path != "/load":
            return Extraction()
        found = self._loras(request)
        references = tuple(_reference(one) for one in found)
        return Extraction(references, tuple(f"/loras/{n}" for n in range(len(found))))

    def settle(self, request: HttpRequest) -> Extraction | None:
        if request.path == "/endless":
            raise RefusedRequestError(
                RefusalCode.DOOR_CLOSED, "It never ends.", remedy="Use /load."
            )
        if request.path == "/unlisted":
            raise RefusedRequestError(
                RefusalCode.ROUTE_UNLISTED, "Nobody knows it.", remedy="Use /load."
            )
        if request.path == "/socket":
            return Extraction()
        return Extraction(unlisted=request.path[1:]) if request.path in ("/warn", "/pass") else None

    def rewrite(self, request: HttpRequest, paths: Mapping[int, str]) -> bytes | None:
        document = json.loads(request.body)
        if document.get("pinned"):
            return None
        if "loras" in document:
            document["loras"] = [
                {**one, "lora": paths[n]} for n, one in enumerate(document["loras"])
            ]
        else:
            document["lora"] = paths[0]
        return json.dumps(document).encode()

    def deny(self, status: int, code: str, message: str, decision_id: str) -> Denial:
        body = {"detail": message, "code": code, "decision_id": decision_id, "by": self.name}
        return Denial(status, json.dumps(body).encode(), headers=(("X-Server", self.name),))

    def _loras(self, request: HttpRequest) -> list[dict[str, object]]:
        try:
            document = json.loads(request.body)
        except ValueError as error:
            raise RefusedRequestError(
                RefusalCode.BODY_UNREADABLE, "The body is no JSON.", remedy="Send JSON."
            ) from error
        return document.get("loras") or [document]


def _reference(one: dict[str, object]) -> AdapterReference:
    lora, strength = str(one["lora"]), float(str(one.get("strength", 1.0)))
    source = {"uri": lora} if "://" in lora else {"path": lora}
    also = tuple(Strength(each, each) for each in one.get("also", ()))  # type: ignore[attr-defined]
    forces = {"strength": Strength(strength, strength), "also": also}
    return AdapterReference(**source, **forces, optional=bool(one.get("optional")))  # type: ignore[arg-type]
