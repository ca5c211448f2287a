"""Edges of the strengths in a graph of ComfyUI, each where a wrong change was left unnoticed."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.intercept.test_comfyui_flow import node, pairs
from tests.server.intercept.test_comfyui_links import loaded, refused


@pytest.mark.parametrize(
    ("vector", "passes"),
    [
        ("1, 1.0,1", True),
        ("1", True),
        ("", True),
        (None, True),
        ("1,0.9", False),
        (1, False),
    ],
)
def test_blocks_that_are_all_one_are_the_whole_lora(vector: Any, passes: bool) -> None:
    graph = {"1": node("LoraLoaderBlockWeight", lora_name="ink", block_vector=vector)}
    if passes:
        assert len(loaded(**graph)) == 1
    else:
        assert "gives blocks of the model strengths of their own" in refused(**graph)


def test_a_node_that_takes_no_text_encoder_may_act_on_the_model_alone() -> None:
    inputs = {"lora_name": "ink", "strength": 0.5, "model": ["4", 0]}
    (one,) = loaded(a=node("Made Up Lora", **inputs))
    assert pairs(one) == {(0.5, 0.5), (0.5, 0.0)}
    (one,) = loaded(a=node("Made Up Lora", **inputs, clip=["4", 1]))
    assert pairs(one) == {(0.5, 0.5)}


@pytest.mark.parametrize(
    ("kind", "inputs", "taken"),
    [
        ("LoraLoader", {}, (1.0, 1.0)),
        ("LoraLoader", {"strength_model": 0.5}, (0.5, 1.0)),
        ("LoraLoader", {"strength_clip": 0.5}, (1.0, 0.5)),
        ("LoraLoaderModelOnly", {}, (1.0, 0.0)),
        ("LoraLoaderModelOnly", {"strength_model": 0.5}, (0.5, 0.0)),
    ],
)
def test_a_loader_of_comfyui_that_gives_no_strength_applies_all_of_the_lora(
    kind: str, inputs: dict[str, float], taken: tuple[float, float]
) -> None:
    (one,) = loaded(a=node(kind, lora_name="ink", **inputs))
    assert pairs(one) == {taken}


@pytest.mark.parametrize(
    ("kind", "inputs", "taken"),
    [
        ("MadeUpLoraModelOnly", {}, [(1.0, 0.0)]),
        ("MadeUpLoraModelOnly", {"strength": 0.5}, [(0.5, 0.0)]),
        ("MadeUpLoraModelOnly", {"strength_model": 0.5}, [(0.5, 0.0)]),
        ("MadeUpLoraModelOnly", {"strength_model": 0.5, "weight": 2}, [(0.5, 0.0), (2.0, 0.0)]),
        ("Lora Stack", {"input_mode": "simple", "weight": 0.5, "clip_str": 2}, [(0.5, 0.5)]),
        (
            "Lora Stack",
            {"input_mode": "advanced", "weight": 3, "model_str": 0.5, "clip_str": 2},
            [(0.5, 2.0)],
        ),
        # Of several, the one that is named first is the likeliest.
        ("Lora Stack", {"weight": 0.5, "strength": 2.0}, [(0.5, 0.5), (2.0, 2.0)]),
    ],
)
def test_a_node_of_a_pack_takes_its_strengths_as_the_pack_does(
    kind: str, inputs: dict[str, Any], taken: list[tuple[float, float]]
) -> None:
    (one,) = loaded(a=node(kind, lora_name="ink", **inputs))
    assert [(force.denoiser, force.text_encoder) for force in one.strengths] == taken


@pytest.mark.parametrize(
    ("name", "mine", "other"),
    [
        ("lora_1", "lora_1_strength", "lora_2_strength"),
        ("lora_01", "lora_1_weight", "lora_10_weight"),
        ("lora_00", "strength_0", "strength_1"),
        ("lora_000", "strength_0", "strength"),
    ],
)
def test_a_strength_belongs_to_the_lora_of_its_number(name: str, mine: str, other: str) -> None:
    (one,) = loaded(a=node("Lora Stack", **{name: "ink", mine: 0.5, other: 2.0}))
    assert pairs(one) == {(0.5, 0.5)}
