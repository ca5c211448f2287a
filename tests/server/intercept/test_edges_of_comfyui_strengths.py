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
