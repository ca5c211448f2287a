"""Edges of the extractor of LocalAI, each where a wrong change was left unnoticed."""

from __future__ import annotations

from typing import Any

import pytest

from loragate_server.intercept.extraction import RefusalCode
from tests.server.intercept.bodies import ROUTES, extractor, post
from tests.server.intercept.verdicts import refusal

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


@pytest.mark.parametrize(
    ("number", "read"),
    [("1.2e-38", True), ("1.1e-38", False), ("3.4e38", True), ("3.5e38", False), ("0.0", True)],
)
def test_a_number_is_one_that_the_server_can_hold(number: str, read: bool) -> None:
    body = {"prompt": f"a <lora:ink:{number}>"}
    if read:
        assert optional(ROUTES["localai"], body) == {INK: False}
    else:
        request = post(ROUTES["localai"], body)
        assert refusal("localai", request) == RefusalCode.ADAPTER_AMBIGUOUS
