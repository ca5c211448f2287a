"""Inputs of ComfyUI's nodes in wrappers, objects and lists: read as the server takes them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loragate_server.intercept.extraction import RefusalCode, RefusedRequestError
from tests.server.intercept.bodies import extractor, post
from tests.server.intercept.test_comfyui_flow import node, pairs
from tests.server.intercept.test_comfyui_links import loaded, refused
from tests.server.intercept.verdicts import EVIL, refusal

GRAPH = {
    "1": node("CheckpointLoaderSimple", ckpt_name="b.safetensors"),
    "2": node(
        "LoraLoader",
        model=["1", 0],
        clip=["1", 1],
        lora_name="evil.safetensors",
        strength_model=20.0,
        strength_clip=-3.0,
    ),
    "3": node("LoraTagLoader", text="a cat <lora:ink:0.5>", model=["2", 0], clip=["2", 1]),
    "4": node("Lora Stack", lora_1="clay", strength_1=0.25, lora_name_2="None", count=2),
    "5": node("Made Up Lora", file=["6", 0], weight=7.0),
    "6": node("PrimitiveString", value="far.safetensors"),
    "7": node("KSampler", model=["3", 0], positive=["8", 0], negative=["8", 0], seed=1),
    "8": node("CLIPTextEncode", clip=["3", 1], text="a harbour"),
}
VALUES = [
    (key, name)
    for key, one in GRAPH.items()
    for name, value in one["inputs"].items()
    if not isinstance(value, list)
]


def wrapped(where: set[tuple[str, str]]) -> dict[str, Any]:
    """The graph with some values as `{"__value__": ...}`, which ComfyUI takes out at once."""
    made: dict[str, Any] = json.loads(json.dumps(GRAPH))
    for key, name in where:
        inputs = made[key]["inputs"]
        inputs[name] = {"__value__": inputs[name]}
    return made


@settings(max_examples=60, deadline=None)
@given(st.sets(st.sampled_from(VALUES)))
def test_a_wrapped_value_is_the_value_wherever_it_stands(where: set[tuple[str, str]]) -> None:
    server = extractor("comfyui", base_names=["b.safetensors"])
    assert (
        server.extract(post("/prompt", {"prompt": wrapped(where)})).adapters
        == server.extract(post("/prompt", {"prompt": GRAPH})).adapters
    )


@settings(max_examples=60, deadline=None)
@given(st.sets(st.sampled_from(VALUES)))
def test_a_name_in_a_wrapper_is_rewritten_where_it_stands(where: set[tuple[str, str]]) -> None:
    server = extractor("comfyui")
    request = post("/prompt", {"prompt": wrapped(where)})
    adapters = server.extract(request).adapters
    paths = {number: f"/loras/audited/{number}.safetensors" for number in range(len(adapters))}
    new = server.rewrite(request, paths)
    assert new is not None
    found = [one.path for one in server.extract(post("/prompt", new)).adapters]
    assert found == list(paths.values())


def test_a_wrapped_name_is_audited_at_the_strengths_of_its_node() -> None:
    inputs = {"lora_name": {"__value__": "evil.safetensors"}, "strength_model": 20.0}
    (one,) = loaded(a=node("LoraLoader", **inputs, strength_clip={"__value__": 3}))
    assert (one.path, pairs(one)) == (EVIL, {(20.0, 3.0)})


def test_a_base_in_a_wrapper_is_another_base() -> None:
    graph = wrapped({("1", "ckpt_name")})
    request = post("/prompt", {"prompt": graph})
    assert refusal("comfyui", request, base_names=["other.safetensors"]) == "adapter_ambiguous"


@pytest.mark.parametrize(
    "value",
    [
        {"__value__": ["9", 0]},
        {"__value__": {"__value__": "evil"}},
        {"__value__": "none", "on": True, "lora": "evil", "strength": 1},
        {"__value__": "none", "__type__": {"lora": "evil"}},
        {"__value__": "none", "__type__": "<lora:evil:1>"},
    ],
)
def test_a_wrapper_that_servers_take_in_different_ways_is_refused(value: Any) -> None:
    request = post("/prompt", {"prompt": {"1": node("Power Lora Loader (rgthree)", lora_1=value)}})
    assert refusal("comfyui", request) == RefusalCode.BODY_UNREADABLE
    assert "__value__ with a link" in refused(a=node("Any", lora_1=value))


def test_a_list_or_a_typed_value_that_a_page_wraps_passes() -> None:
    curve = {"__type__": "CURVE", "__value__": [[0, 0], [1, 1]]}
    choice = {"__value__": ["a", "b"]}
    assert loaded(a=node("Curve", curve=curve, words=choice, range={"__value__": [0, 1]})) == ()


@pytest.mark.parametrize(
    ("inputs", "force"),
    [
        ({"lora": {"file": {"name": "evil"}}, "strength": 20}, 20.0),
        ({"lora": {"file": {"name": "evil"}, "strength": 20}, "strength": 0.5}, 20.0),
        ({"lora": {"name": "evil", "strength": 20}, "strength": 0.5}, 20.0),
        ({"lora_1": {"name": "evil"}, "strength_1": 20, "strength_2": 2}, 20.0),
        ({"rows": [{"lora": "evil"}], "strength": 20}, 20.0),
        ({"lora_stack": [["evil", 20.0, 20.0]]}, 20.0),
        ({"lora_stack": {"__value__": [["evil", 20.0, 20.0], ["None", 1, 1]]}}, 20.0),
        ({"loras": ["evil", 20, "None"]}, 20.0),
        ({"lora_1": "evil", "strength": 20}, 20.0),
        ({"lora_name": "evil", "lora_scale": 20}, 20.0),
        ({"lora_name": "evil", "multiplier": 20}, 20.0),
        ({"lora_name": "evil", "strength_high": 20, "strength_low": 2}, 20.0),
    ],
)
def test_the_strength_of_a_name_is_the_nearest_one(inputs: dict[str, Any], force: float) -> None:
    (one,) = loaded(a=node("Made Up Lora", **inputs))
    assert one.path == EVIL
    assert (force, force) in pairs(one)
    assert (1.0, 1.0) not in pairs(one)


def test_the_numbers_of_a_stack_are_for_the_model_and_for_the_text_encoder() -> None:
    (one,) = loaded(a=node("CR Apply LoRA Stack", lora_stack=[["evil.safetensors", 0.5, 2]]))
    assert pairs(one) == {(0.5, 2.0)}
    many = node("Made Up Lora", rows=[["evil.safetensors", 1, 1, 1]])
    assert "stands in a list with many numbers" in refused(a=many)


def test_a_name_of_a_member_that_a_text_would_hold_is_refused() -> None:
    said = refused(a=node("LoraTagLoader", text={"<lora:evil:1>": 1}))
    assert said == "/prompt/a/inputs/text has a member whose name may be a tag."
    with pytest.raises(RefusedRequestError):
        loaded(a=node("Any", text=[{"a": {"x<lo{r:1}a:evil:1>": ""}}]))
    assert loaded(a=node("Any", text={"<3": 1, "a:b": 2})) == ()
