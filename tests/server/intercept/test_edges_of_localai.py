"""Edges of the extractor of LocalAI, each where a wrong change was left unnoticed."""

from __future__ import annotations

from typing import Any

from tests.server.intercept.bodies import ROUTES, extractor, post

INK, MIST = "/loras/ink.safetensors", "/loras/mist.safetensors"


def optional(path: str, body: Any) -> dict[str | None, bool]:
    """The files of a request, and whether each may be left out."""
    adapters = extractor("localai").extract(post(path, body)).adapters
    return {one.path: one.optional for one in adapters}


def test_the_loras_of_a_negative_prompt_may_be_left_out() -> None:
    both = {"prompt": "a <lora:ink:1>", "negative_prompt": "b <lora:mist:1>"}
    assert optional("/video", both) == {INK: False, MIST: True}
    divided = {"prompt": "a <lora:ink:1>|b <lora:mist:1>"}
    assert optional(ROUTES["localai"], divided) == {INK: False, MIST: True}
