"""Edges of Fooocus-API and LocalAI, each where a wrong change was left unnoticed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from loragate_server.adapter.reference import AdapterReference
from loragate_server.intercept.extraction import RefusalCode
from loragate_server.intercept.request import HttpRequest
from tests.server.intercept.bodies import ROUTES, extractor, multipart, multipart_post, post
from tests.server.intercept.verdicts import refusal

INK_FILE, MIST_FILE = "/loras/ink.safetensors", "/loras/mist.safetensors"
SHARED = "/loras/audited/0a.safetensors"
INK = {"model_name": "ink.safetensors", "weight": 0.5}


def adapters(request: HttpRequest, **settings: Any) -> tuple[AdapterReference, ...]:
    return extractor("fooocus", **settings).extract(request).adapters


def optional(body: Any) -> list[bool]:
    return [one.optional for one in adapters(post(ROUTES["fooocus"], body))]


def test_the_lora_of_a_fast_performance_is_loaded_with_those_of_the_list() -> None:
    body = {"loras": [INK], "performance_selection": "Lightning"}
    assert optional(body) == [False, False]
    assert optional(body | {"prompt": "a <lora:mist:1>"}) == [False, False, True]


def test_a_list_in_a_form_is_rewritten_in_its_field_and_a_performance_nowhere() -> None:
    parts = [
        {"name": "prompt", "text": "a harbour"},
        {"name": "loras", "text": json.dumps([INK, INK | {"model_name": "mist.safetensors"}])},
        {"name": "performance_selection", "text": "Lightning"},
    ]
    request = multipart_post(ROUTES["fooocus"], parts)
    assert [one.path for one in adapters(request)] == [
        "/loras/ink.safetensors",
        "/loras/mist.safetensors",
        "/loras/sdxl_lightning_4step_lora.safetensors",
    ]
    new = extractor("fooocus").rewrite(request, {1: SHARED})
    parts[1]["text"] = parts[1]["text"].replace("mist", "audited/0a")
    assert new == multipart(parts)
    assert extractor("fooocus").rewrite(request, {2: SHARED}) is None


def test_of_sixty_five_loras_every_one_is_named_and_of_sixty_four_which_act_together() -> None:
    def listed(count: int) -> dict[str, Any]:
        names = [{"model_name": f"{number}.safetensors"} for number in range(count)]
        return {"loras": [names[0] | {"enabled": False}, *names[1:]]}

    # Of a list, the server takes the first five.
    assert optional(listed(64)) == [True, *[False] * 4, *[True] * 59]
    assert optional(listed(65)) == [False] * 65


def test_a_tag_has_the_strength_of_its_first_number() -> None:
    (one,) = adapters(post(ROUTES["fooocus"], {"prompt": "a <lora:ink:0.5:0.9>"}))
    assert [each.denoiser for each in one.strengths] == [0.5]


def test_a_tag_means_any_file_below_the_folder_that_has_its_stem(tmp_path: Path) -> None:
    for name in ("a/ink.safetensors", "b/ink.safetensors", "a/mist.safetensors"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def meant(name: str) -> list[str]:
        request = post(ROUTES["fooocus"], {"prompt": f"a <lora:{name}:1>"})
        found = adapters(request, lora_folder=str(tmp_path))
        return [str(one.path).removeprefix(f"{tmp_path}/") for one in found]

    assert meant("mist") == ["a/mist.safetensors"]
    assert meant("ink") == ["a/ink.safetensors", "b/ink.safetensors"]
    assert meant("fog") == ["fog.safetensors"]


def test_what_is_not_said_of_a_strength_is_what_the_server_takes() -> None:
    def strengths(body: dict[str, Any]) -> set[float]:
        (one,) = adapters(post(ROUTES["fooocus"], body))
        return {each.denoiser for each in one.strengths}

    assert strengths({"loras": [{"model_name": "ink.safetensors"}]}) == {0.5}
    assert strengths({"performance_selection": "Extreme Speed"}) == {1.0}
    assert strengths({"performance_selection": "Lightning"}) == {1.0}
    assert strengths({"performance_selection": "Hyper-SD"}) == {0.8, 1.0}


def in_localai(path: str, body: Any) -> dict[str | None, bool]:
    """The files of a request to LocalAI, and whether each may be left out."""
    found = extractor("localai").extract(post(path, body)).adapters
    return {one.path: one.optional for one in found}


def test_the_loras_of_a_negative_prompt_may_be_left_out() -> None:
    both = {"prompt": "a <lora:ink:1>", "negative_prompt": "b <lora:mist:1>"}
    assert in_localai("/video", both) == {INK_FILE: False, MIST_FILE: True}
    divided = {"prompt": "a <lora:ink:1>|b <lora:mist:1>"}
    assert in_localai(ROUTES["localai"], divided) == {INK_FILE: False, MIST_FILE: True}


@pytest.mark.parametrize(
    ("number", "read"),
    [("1.2e-38", True), ("1.1e-38", False), ("3.4e38", True), ("3.5e38", False), ("0.0", True)],
)
def test_a_number_is_one_that_the_server_can_hold(number: str, read: bool) -> None:
    body = {"prompt": f"a <lora:ink:{number}>"}
    if read:
        assert in_localai(ROUTES["localai"], body) == {INK_FILE: False}
    else:
        request = post(ROUTES["localai"], body)
        assert refusal("localai", request) == RefusalCode.ADAPTER_AMBIGUOUS


@pytest.mark.parametrize("note", ["<lora:ink:1>", "a <LoRA:ink", "<hypernet:ink:1>"])
def test_a_tag_is_refused_where_localai_reads_none(note: str) -> None:
    request = post(ROUTES["localai"], {"prompt": "a", "notes": [{"text": note}]})
    assert refusal("localai", request) == RefusalCode.ADAPTER_UNNAMED
