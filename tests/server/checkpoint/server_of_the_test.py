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
from loragate_server.intercept.reading.findings import Findings, Found
from loragate_server.intercept.request import HttpRequest
from loragate_server.intercept.routes import Hit, Route, route


@dataclass(frozen=True, kw_only=True)
class PlainServer(ImageServer):
    """The extractor of that server; what it does not guard loads nothing."""

    kind: ClassVar[str] = "plain"
    routes: ClassVar[tuple[Route, ...]] = tuple(
        route(name, name) for name in ("load", "merge", "fault", "endless")
    )
    passed: ClassVar[tuple[str, ...]] = ("POST /**",)

    def settle(self, request: HttpRequest) -> Extraction | None:
        if request.path == "/unlisted":
            raise RefusedRequestError(
                RefusalCode.ROUTE_UNLISTED, "Nobody knows it.", remedy="Use /load."
            )
        if request.path in ("/warn", "/pass"):
            return Extraction(unlisted=request.path[1:])
        return super().settle(request)

    def check_head(self, hit: Hit, request: HttpRequest) -> None:
        if hit.route.name == "endless":
            raise RefusedRequestError(
                RefusalCode.DOOR_CLOSED, "It never ends.", remedy="Use /load."
            )

    def find(self, hit: Hit, request: HttpRequest) -> Findings:
        if hit.route.name == "merge":
            raise RefusedRequestError(
                RefusalCode.DOOR_CLOSED, "Merging cannot be audited.", remedy="Use /load."
            )
        if hit.route.name == "fault":
            raise KeyError(request.body.decode())
        return Findings(
            tuple(
                Found(_reference(one), f"/loras/{n}") for n, one in enumerate(self._loras(request))
            )
        )

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
