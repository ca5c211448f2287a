"""Edges of the extractor of stable-diffusion.cpp, each where a wrong change was left unnoticed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from loragate_server.intercept.extraction import RefusalCode, RefusedRequestError
from loragate_server.intercept.request import HttpRequest
from tests.server.intercept.bodies import (
    BOUNDARY,
    ROUTES,
    extractor,
    multipart,
    multipart_post,
    post,
)
from tests.server.intercept.verdicts import refusal

SERVER = "stable_diffusion_cpp"
SHARED = "/loras/audited/0a.safetensors"
ARGUMENTS = "<sd_cpp_extra_args>{}</sd_cpp_extra_args>"


def adapters(request: HttpRequest) -> dict[str | None, bool]:
    """The files of a request, and whether each may be left out."""
    return {one.path: one.optional for one in extractor(SERVER).extract(request).adapters}


def rewritten(body: Any) -> Any:
    new = extractor(SERVER).rewrite(post(ROUTES[SERVER], body), {0: SHARED})
    return None if new is None else json.loads(new)


def test_a_name_that_begins_behind_the_arguments_is_rewritten_there() -> None:
    assert rewritten({"prompt": f"a <lora:{ARGUMENTS}ink:1>"}) == {
        "prompt": f"a <lora:{ARGUMENTS}audited/0a.safetensors:1>"
    }
    assert rewritten({"prompt": f"{ARGUMENTS}<lora:ink:1>"}) == {
        "prompt": f"{ARGUMENTS}<lora:audited/0a.safetensors:1>"
    }
    assert rewritten({"prompt": f"a <lora:in{ARGUMENTS}k:1>"}) is None


def test_a_name_that_ends_before_the_arguments_is_rewritten_there() -> None:
    assert rewritten({"prompt": f"a <lora:ink{ARGUMENTS}:1>"}) == {
        "prompt": f"a <lora:audited/0a.safetensors{ARGUMENTS}:1>"
    }


def test_the_arguments_of_a_form_are_read_whatever_its_tags_are() -> None:
    listed = json.dumps({"lora": [{"path": "/loras/ink.safetensors"}]})
    prompt = f"a <lora:mist:1> {ARGUMENTS.replace('{}', listed)}"
    request = multipart_post("/v1/images/edits", [{"name": "prompt", "text": prompt}])
    assert adapters(request) == {"/loras/ink.safetensors": False, "/loras/mist.safetensors": True}


def test_a_tag_without_a_name_names_nothing() -> None:
    assert adapters(post(ROUTES[SERVER], {"prompt": "a <lora::1> <lora:ink:> <lora:>"})) == {}


@pytest.mark.parametrize(
    "path", ["//loras/ink.safetensors", "/../loras/ink.safetensors", "/./a.pt"]
)
def test_a_path_that_goes_nowhere_at_its_beginning_is_refused(path: str) -> None:
    listed = json.dumps({"lora": [{"path": path}]})
    for prompt in (ARGUMENTS.replace("{}", listed), f"<lora:{path}:1>"):
        request = post(ROUTES[SERVER], {"prompt": prompt})
        assert refusal(SERVER, request) == RefusalCode.ADAPTER_UNNAMED


def arguments(count: int, length: int = 0) -> dict[str, Any]:
    """A prompt with so many LoRAs in arguments of so many letters."""
    listed = [{"path": f"/loras/{number}.safetensors"} for number in range(count)]
    text = json.dumps({"lora": listed}).ljust(length)
    return {"prompt": ARGUMENTS.replace("{}", text)}


def test_arguments_with_many_loras_are_not_rewritten() -> None:
    assert "/loras/audited/0a.safetensors" in rewritten(arguments(64))["prompt"]
    assert rewritten(arguments(65)) is None


def test_arguments_of_many_letters_are_not_rewritten() -> None:
    assert "/loras/audited/0a.safetensors" in rewritten(arguments(1, 64 * 1024))["prompt"]
    assert rewritten(arguments(1, 64 * 1024 + 1)) is None


def test_a_form_with_something_before_its_first_part_is_refused() -> None:
    body = multipart([{"name": "prompt", "text": "a"}])
    kind = f"multipart/form-data; boundary={BOUNDARY}"
    assert adapters(post("/v1/images/edits", body, content_type=kind)) == {}
    request = post("/v1/images/edits", b"\r\n" + body, content_type=kind)
    assert refusal(SERVER, request) == RefusalCode.BODY_AMBIGUOUS


def test_a_list_is_read_and_arguments_are_where_there_is_none_and_tags_may_be() -> None:
    listed = {"lora": [{"path": "ink.safetensors"}]}
    expected = {"/loras/ink.safetensors": False, "/loras/mist.safetensors": True}
    given = {"lora": [{"path": "/loras/ink.safetensors"}]}
    prompt = f"{ARGUMENTS.replace('{}', json.dumps(given))} <lora:mist:1>"
    assert adapters(post("/sdapi/v1/txt2img", {"prompt": prompt})) == expected
    assert adapters(post("/sdapi/v1/txt2img", {"prompt": "<lora:mist:1>", **listed})) == expected


@pytest.mark.parametrize(
    "prompt",
    [
        f"<sd_cpp_{ARGUMENTS}extra_args>",
        ARGUMENTS.replace("{}", json.dumps({"prompt": "<sd_cpp_extra_args>"})),
        f"{ARGUMENTS} {ARGUMENTS}",
    ],
)
def test_arguments_that_may_begin_twice_are_refused(prompt: str) -> None:
    with pytest.raises(RefusedRequestError, match="holds sd_cpp_extra_args several times"):
        adapters(post(ROUTES[SERVER], {"prompt": prompt}))


def test_a_sum_of_strengths_is_said_in_no_more_digits_than_it_takes() -> None:
    for total in (0.3, 0.000999598):
        listed = [{"path": "ink.safetensors", "multiplier": one} for one in (total, 0)]
        request = post("/sdapi/v1/txt2img", {"prompt": "a", "lora": listed})
        (one,) = extractor(SERVER).extract(request).adapters
        assert one.strength.denoiser == total
