"""Edges of the extractor of SwarmUI, each where a wrong change was left unnoticed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from loragate_server.intercept.extraction import RefusalCode, RefusedRequestError
from tests.server.intercept.bodies import ROUTES, extractor, post
from tests.server.intercept.verdicts import found, refusal

SHARED = "/loras/audited/0a.safetensors"


def rewritten(body: Any, path: str = SHARED) -> Any:
    new = extractor("swarmui").rewrite(post(ROUTES["swarmui"], body), {0: path})
    return None if new is None else json.loads(new)


def optional(body: Any) -> list[bool]:
    adapters = extractor("swarmui").extract(post(ROUTES["swarmui"], body)).adapters
    return [one.optional for one in adapters]


def test_a_lora_is_called_as_the_server_lists_it_without_its_suffix() -> None:
    assert rewritten({"loras": ["ink"]}) == {"loras": ["audited/0a"]}
    assert rewritten({"prompt": "a <lora:ink:1>"}) == {"prompt": "a <lora:audited/0a:1>"}
    assert rewritten({"loras": ["ink"]}, "/loras/a,b.safetensors") is None
    assert rewritten({"loras": ["ink"]}, "/loras/ink.sft") is None


def test_each_name_of_a_list_in_a_text_is_rewritten_where_it_stands() -> None:
    assert rewritten({"loras": "ink, mist"}) == {"loras": "audited/0a, mist"}
    assert rewritten({"loras": "ink\n|||\nmist"}) == {"loras": "audited/0a\n|||\nmist"}


def test_a_comma_divides_the_item_of_a_list_only_where_it_is_the_only_one() -> None:
    request = post(ROUTES["swarmui"], {"loras": ["ink,mist"]})
    assert refusal("swarmui", request) == RefusalCode.ADAPTER_AMBIGUOUS
    two = post(ROUTES["swarmui"], {"loras": ["ink,mist", "fog"]})
    assert found("swarmui", two) == ["/loras/ink,mist.safetensors", "/loras/fog.safetensors"]


def test_a_lora_that_a_list_names_twice_is_applied_twice() -> None:
    assert optional({"loras": ["ink", "ink"]}) == [False, False]
    assert optional({"loras": ["ink"], "prompt": "a <lora:ink:1>"}) == [False, True]


def test_a_lora_of_a_tag_that_no_list_names_is_applied_with_those_of_the_list() -> None:
    assert optional({"loras": ["ink"], "prompt": "a <lora:mist:1>"}) == [False, False]


def test_a_strength_is_at_most_the_largest_that_the_server_can_hold() -> None:
    largest = "3.4028234663852886e38"
    assert optional({"loras": ["ink"], "loraweights": [largest]}) == [False]
    request = post(ROUTES["swarmui"], {"loras": ["ink"], "loraweights": ["3.41e38"]})
    assert refusal("swarmui", request) == RefusalCode.ADAPTER_AMBIGUOUS


def test_what_is_given_as_nothing_takes_a_parameter_out() -> None:
    none = {"loras": None, "loraweights": None, "negativeprompt": None}
    assert optional({**none, "prompt": "a <lora:ink:1>"}) == [False]
    assert optional({"loras": [], "loraweights": "", "prompt": None}) == []
    nothing: tuple[Any, ...] = (0, False, {})
    for item in nothing:
        request = post(ROUTES["swarmui"], {"loras": item})
        assert refusal("swarmui", request) == RefusalCode.ADAPTER_AMBIGUOUS


@pytest.mark.parametrize("name", ["negativemodelincludeloras", "loramystery"])
@pytest.mark.parametrize("item", [True, "true", "false", "ink"])
def test_a_switch_for_loras_names_none_and_anything_else_may(name: str, item: Any) -> None:
    body = {"prompt": "a", name: item}
    if name == "negativemodelincludeloras" and item != "ink":
        assert optional(body) == []
    else:
        request = post(ROUTES["swarmui"], body)
        assert refusal("swarmui", request) == RefusalCode.ADAPTER_UNNAMED


def test_a_bracket_that_begins_no_lora_may_stand_anywhere() -> None:
    assert optional({"prompt": "a", "note": "b < c <b> <i:x>"}) == []
    for note in ("<lora:ink:1>", "<LoRA:ink", "<lo\x07ra:ink:1>"):
        request = post(ROUTES["swarmui"], {"prompt": "a", "note": note})
        assert refusal("swarmui", request) == RefusalCode.ADAPTER_UNNAMED


def test_four_thousand_and_ninety_six_tags_are_the_most() -> None:
    assert optional({"prompt": "<b>" * 4095 + "<lora:ink:1>"}) == [False]
    with pytest.raises(RefusedRequestError, match="more than 4096 tags"):
        optional({"prompt": "<b>" * 4097})


@pytest.mark.parametrize("name", ["prompt", "negativeprompt", "loras", "loraweights"])
def test_a_parameter_that_is_read_comes_once_in_whatever_letters(name: str) -> None:
    other = f"{name[:1].upper()}{name[1:]} "
    request = post(ROUTES["swarmui"], {name: "ink", other: "<lora:mist:1>"})
    assert refusal("swarmui", request) == RefusalCode.ADAPTER_AMBIGUOUS
    assert optional({"prompt": "a", "images": 1, "Images": 2, "someloraswitch": 0}) == []


def test_a_graph_for_comfyui_is_refused_and_what_only_sounds_like_one_is_not() -> None:
    assert optional({"prompt": "a", "comfyuisampler": "x", "workflow": "y"}) == []
    for name in ("comfyuicustomworkflow", "ComfyWorkflowRaw"):
        request = post(ROUTES["swarmui"], {"prompt": "a", name: "x"})
        assert refusal("swarmui", request) == RefusalCode.ADAPTER_UNNAMED


def test_every_model_of_a_request_is_the_one_that_is_audited_for() -> None:
    body = {"prompt": "a", "model": "sdxl", "refinermodel": "sdxl", "scheduler": "karras"}
    server = extractor("swarmui", base_names=["sdxl"])
    assert server.extract(post(ROUTES["swarmui"], body)).adapters == ()
    for name in ("model", "refinermodel"):
        request = post(ROUTES["swarmui"], {**body, name: "other"})
        assert refusal("swarmui", request, base_names=["sdxl"]) == RefusalCode.ADAPTER_AMBIGUOUS
