"""LoRAs that flow through a graph of ComfyUI, and nodes that change how strongly they act."""

from __future__ import annotations

from typing import Any

import pytest

from loragate_server.adapter.reference import AdapterReference
from loragate_server.intercept.extraction import RefusalCode
from tests.server.intercept.bodies import extractor, post
from tests.server.intercept.decoys import drawn_from, loader
from tests.server.intercept.verdicts import refusal


def loaded(graph: dict[str, Any]) -> tuple[AdapterReference, ...]:
    return extractor("comfyui").extract(post("/prompt", {"prompt": graph})).adapters


def pairs(reference: AdapterReference) -> set[tuple[float, float]]:
    return {(one.denoiser, one.text_encoder) for one in reference.strengths}


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def test_a_loader_whose_text_encoder_nobody_uses_acts_on_the_denoiser_alone() -> None:
    encoder = node("CLIPTextEncode", clip=["4", 1], text="a")
    (one,) = loaded(drawn_from("1", **{"1": loader("ink", 0.7), "6": encoder}))
    assert pairs(one) == {(0.7, 0.0)}


def test_conditions_with_and_without_a_lora_are_both_judged() -> None:
    plain = node("CLIPTextEncode", clip=["4", 1], text="fog")
    sampler = node("KSampler", model=["1", 0], positive=["6", 0], negative=["7", 0])
    (one,) = loaded(drawn_from("1", **{"1": loader("ink", 0.7), "7": plain, "3": sampler}))
    assert pairs(one) == {(0.7, 0.7), (0.7, 0.0)}


@pytest.mark.parametrize("between", ["ModelSamplingSD3", "FreeU_V2", "Made Up Patch"])
def test_what_only_changes_a_model_adds_no_use(between: str) -> None:
    graph = drawn_from(
        "2",
        **{
            "1": loader("ink", 0.5),
            "7": node(between, model=["1", 0]),
            "2": node(
                "LoraLoader",
                model=["7", 0],
                clip=["1", 1],
                lora_name="clay",
                strength_model=1,
                strength_clip=1,
            ),
        },
    )
    assert [(pairs(one), one.optional) for one in loaded(graph)] == [
        ({(0.5, 0.5)}, False),
        ({(1.0, 1.0)}, False),
    ]


def test_a_stack_that_is_applied_is_certain_and_one_that_is_not_may_be_left_out() -> None:
    stack = {"switch_1": "On", "lora_name_1": "ink", "model_weight_1": 1, "clip_weight_1": 1}
    graph = drawn_from(
        "2",
        **{
            "1": node("CR LoRA Stack", **stack),
            "7": node("CR LoRA Stack", **{**stack, "lora_name_1": "clay"}),
            "2": node("CR Apply LoRA Stack", model=["4", 0], clip=["4", 1], lora_stack=["1", 0]),
        },
    )
    assert {one.path: one.optional for one in loaded(graph)} == {
        "/loras/ink.safetensors": False,
        "/loras/clay.safetensors": True,
    }


def test_a_merge_of_models_weighs_the_loras_of_each() -> None:
    graph = drawn_from(
        "1",
        **{
            "1": loader("ink", 1.0),
            "2": loader("clay", 1.0),
            "7": node("ModelMergeSimple", model1=["1", 0], model2=["2", 0], ratio=0.25),
            "6": node("CLIPTextEncode", clip=["4", 1], text="a"),
            "3": node("KSampler", model=["7", 0], positive=["6", 0], negative=["6", 0]),
        },
    )
    assert [pairs(one) for one in loaded(graph)] == [{(0.25, 0.0)}, {(0.75, 0.0)}]


@pytest.mark.parametrize(
    "more",
    [
        {"7": node("ModelMergeSubtract", model1=["4", 0], model2=["1", 0], multiplier=1)},
        {"7": node("ModelMergeBlocks", model1=["4", 0], model2=["1", 0], input=1)},
        {"7": node("CreateHookKeyframe", strength_mult=-1, start_percent=0)},
    ],
)
def test_a_node_that_computes_with_models_is_refused_behind_a_lora(more: dict[str, Any]) -> None:
    sampler = node("KSampler", model=["7", 0], positive=["6", 0], negative=["6", 0])
    graph = drawn_from("1", **{"1": loader("ink", -1.0), "3": sampler, **more})
    code = refusal("comfyui", post("/prompt", {"prompt": graph}))
    assert code == RefusalCode.ADAPTER_AMBIGUOUS


def test_a_merge_without_loras_passes() -> None:
    merge = node("ModelMergeSubtract", model1=["4", 0], model2=["4", 0], multiplier=1)
    assert loaded(drawn_from("4", **{"7": merge})) == ()


def test_strengths_of_single_blocks_are_refused_unless_they_are_all_one() -> None:
    block = node("LoraLoaderBlockWeight", model=["4", 0], clip=["4", 1], lora_name="ink")
    for vector, passes in (("1,1,1", True), ("1,0,1", False), (["9", 0], False)):
        block["inputs"]["block_vector"] = vector
        request = post("/prompt", {"prompt": drawn_from("1", **{"1": block})})
        if passes:
            assert len(extractor("comfyui").extract(request).adapters) == 1
        else:
            assert refusal("comfyui", request) == RefusalCode.ADAPTER_AMBIGUOUS


def test_a_switch_between_two_loras_leaves_both_open() -> None:
    graph = drawn_from(
        "1",
        **{
            "1": loader("ink", 1.0),
            "2": loader("clay", 1.0),
            "7": node("ImpactSwitch", select=1, input1=["1", 0], input2=["2", 0]),
            "3": node("KSampler", model=["7", 0], positive=["6", 0], negative=["6", 0]),
        },
    )
    assert [one.optional for one in loaded(graph)] == [True, True]


def test_a_graph_that_runs_in_circles_makes_nothing_certain() -> None:
    graph = drawn_from("1", **{"1": loader("ink", 1.0, "2"), "2": loader("clay", 1.0, "1")})
    assert all(one.optional for one in loaded(graph))


def test_a_chain_of_a_thousand_nodes_is_followed() -> None:
    chain = {
        f"p{n}": node("ModelSamplingSD3", model=[f"p{n - 1}" if n else "1", 0]) for n in range(1000)
    }
    sampler = node("KSampler", model=["p999", 0], positive=["6", 0], negative=["6", 0])
    graph = drawn_from("1", **{"1": loader("ink", 0.5), **chain, "3": sampler})
    (one,) = loaded(graph)
    assert pairs(one) == {(0.5, 0.5)}


def test_a_graph_with_more_ways_than_can_be_told_apart_makes_nothing_certain() -> None:
    loaders = {f"l{n}": loader(f"style{n}", 1.0) for n in range(9)}
    switches: dict[str, Any] = {}
    for n in range(8):
        one = [f"s{n - 1}", 0] if n else ["l0", 0]
        switches[f"s{n}"] = node("AnySwitch", a=one, b=[f"l{n + 1}", 0], c=["l0", 0])
    merged = {f"m{n}": node("Made Up", a=[f"s{n}", 0], b=["s7", 0]) for n in range(8)}
    sampler = node("KSampler", model=["m7", 0], positive=["6", 0], negative=["6", 0])
    found = loaded(drawn_from("l0", **loaders, **switches, **merged, **{"3": sampler}))
    assert len(found) == 9
    assert sum(one.optional for one in found) >= 8


@pytest.mark.parametrize(("mode", "optional"), [(0, False), (2, True), (3, False), (4, True)])
def test_a_loader_that_the_page_mutes_or_bypasses_may_be_left_out(
    mode: int, optional: bool
) -> None:
    loaders = {"1": loader("ink", 1.0, "2"), "2": loader("clay", 1.0, mode=mode)}
    ink, clay = sorted(loaded(drawn_from("1", **loaders)), key=lambda one: str(one.path))[::-1]
    assert (ink.optional, clay.optional) == (False, optional)


def test_a_link_that_is_no_model_does_not_make_a_lora_optional() -> None:
    graph = drawn_from(
        "1",
        **{
            "1": node("LoraLoaderModelOnly", model=["4", 0], lora_name="ink", strength_model=1),
            "2": loader("clay", 1.0),
            "6": node("CLIPTextEncode", clip=["2", 1], text="a"),
            "3": node(
                "KSampler", model=["1", 0], positive=["6", 0], negative=["6", 0], thing=["4", 0]
            ),
        },
    )
    assert [one.optional for one in loaded(graph)] == [False, False]
