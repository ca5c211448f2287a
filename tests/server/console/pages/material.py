"""What is recorded and shown, and the browsers that look at it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient
from multidict import MultiDict

from loragate_server.audit.evidence import (
    ConceptEvidence,
    Evidence,
    HeatMap,
    LayerProfile,
)
from testkit import evidence as made
from tests.server.console.pages.reading import Page

POLICY = b"version: 1\nmode: enforce\ndefaults:\n  block_p_value: 0.01\n  review_p_value: 0.05\n"
ADDRESS = "http://localhost:8000"
HOSTILE = "<script>alert(1)</script>\u202e'\"&{{7*7}}"


def suspected(
    name: str = "Star Captain", severity: str = "medium", **facts: Any
) -> ConceptEvidence:
    """A concept that the policy wants a person to look at."""
    known: dict[str, Any] = {
        "concept_id": "star-captain", "concept_name": name, "severity": severity,
        "score": 3.1, "p_value": 0.03, "degree": 21.0, "family_p_value": 0.03,
    }  # fmt: skip
    return made.concept(**{**known, **facts})


def evidence(*concepts: ConceptEvidence, sha256: str = "a" * 64, **facts: Any) -> Evidence:
    """Evidence of an audit that went well."""
    coverage = made.adapter(
        sha256, size_bytes=37_861_176, format="kohya", denoiser_strength=0.8,
        weight_tensors=192, mapped_tensors=192, matched_modules=96,
    )  # fmt: skip
    heat = HeatMap("star-captain", ("down_blocks.0", "up_blocks.0"), ("0.16",), ((1.0,), (6.5,)))
    known: dict[str, Any] = {
        "adapters": (coverage,), "layers": (LayerProfile("down_blocks.0", 0.12, 0.9931, 1.4),),
        "neutral_count": 48, "stage_times_s": {"response": 0.41}, "heat_map": heat,
        "calibration_digest": "e" * 64, "calibration_size": 150,
    }  # fmt: skip
    return made.evidence(*concepts, **{**known, **facts})


@dataclass
class Browser:
    """Somebody's browser, as the proxy passes it on."""

    client: TestClient[web.Request, web.Application]
    headers: Mapping[str, str]

    async def ask(self, path: str, **options: Any) -> ClientResponse:
        """Any request below `/console`; redirections are not followed."""
        headers = {**self.headers, **options.pop("headers", {})}
        method = options.pop("method", "GET")
        return await self.client.request(
            method, f"/console{path}", headers=headers, allow_redirects=False, **options
        )

    async def see(self, path: str, status: int = 200, **options: Any) -> Page:
        """A page, which has to be well-formed."""
        answer = await self.ask(path, **options)
        text = await answer.text()
        assert answer.status == status, text
        return Page(text, answer.headers)

    async def send(self, path: str, page: Page, **fields: str) -> ClientResponse:
        """The form of a page, with what a person types into it."""
        headers = {"Origin": ADDRESS, "Content-Type": "application/x-www-form-urlencoded"}
        data = MultiDict({**page.form("act"), **fields})
        for box in page.all("input", "#act"):
            if box.get("type") == "checkbox" and "checked" in box and box["name"] not in fields:
                data.add(box["name"] or "", box["value"] or "")
        return await self.ask(path, method="POST", headers=headers, data=data)


Opens = Callable[..., Browser]
