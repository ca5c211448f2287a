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


def graph(source: dict[str, Any], **more: Any) -> dict[str, Any]:
    taker = node("LoraLoaderModelOnly", lora_name="ink", strength_model=["9", 0])
    return {"9": source, "10": taker, **more}


def formula(text: str) -> dict[str, Any]:
    return graph(node("ComfyMathExpression", expression=text))


@pytest.mark.parametrize(
    ("known", "made", "unknown"),
    [
        ("round(0.5, 15)", 0.5, "round(0.5, 16)"),
        ("round(0.5, -15)", 0.0, "round(0.5, -16)"),
        ("1 ** 64", 1.0, "1 ** 65"),
        ("1 ** -64", 1.0, "1 ** -65"),
        ("1000000000000 / 1000000000000", 1.0, "1000000000001 / 1000000000001"),
        ("-1000000000000 / 1000000000000", -1.0, "-1000000000001 / 1000000000001"),
        (f"1{' ' * 497}+1", 2.0, f"1{' ' * 498}+1"),
    ],
)
def test_a_formula_is_computed_up_to_its_limits(known: str, made: float, unknown: str) -> None:
    (one,) = loaded(**formula(known))
    assert one.strength.denoiser == made
    assert "makes while the graph runs" in refused(**formula(unknown))


def operated(**inputs: Any) -> dict[str, Any]:
    return graph(node("easy mathFloat", **{"a": 1, "b": 4, "operation": "divide", **inputs}))


def test_an_operation_is_done_where_all_of_it_is_known() -> None:
    (one,) = loaded(**operated())
    assert one.strength.denoiser == 0.25
    for inputs in ({"operation": "power"}, {"a": ["8", 0]}, {"b": ["8", 0]}, {"b": None}):
        assert "makes while the graph runs" in refused(**operated(**inputs))


@pytest.mark.parametrize(("more", "known"), [(0, True), (1, False)])
def test_an_operation_may_make_a_million_millions(more: int, known: bool) -> None:
    large = node("easy mathFloat", a=10**12 - 1, b=1 + more, operation="add")
    both = graph(node("easy mathFloat", a=["8", 0], b=10**12, operation="divide"), **{"8": large})
    if known:
        (one,) = loaded(**both)
        assert one.strength.denoiser == 1.0
    else:
        assert "makes while the graph runs" in refused(**both)


@pytest.mark.parametrize(
    ("kind", "name", "whole"),
    [
        ("ComfyMathExpression", "expression", 0),
        ("MathExpression|pysssss", "expression", 1),
        ("SimpleMath+", "value", 1),
        ("SimpleMathDebug+", "value", 1),
    ],
)
def test_what_a_formula_makes_is_known_where_it_is_not_rounded(
    kind: str, name: str, whole: int
) -> None:
    for output in (0, 1, 2):
        taken = graph(node(kind, **{name: "1/4"}))
        taken["10"]["inputs"]["strength_model"] = ["9", output]
        if output == whole:
            (one,) = loaded(**taken)
            assert one.strength.denoiser == 0.25
        else:
            assert "makes while the graph runs" in refused(**taken)
