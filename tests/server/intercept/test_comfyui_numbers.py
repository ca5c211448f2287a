"""Strengths that come to a node of ComfyUI by a link."""

from __future__ import annotations

import pytest

from loragate_server.intercept.extraction import RefusedRequestError
from loragate_server.intercept.servers.comfyui_numbers import computed
from tests.server.intercept.bodies import extractor, post
from tests.server.intercept.test_comfyui_flow import node

NAMES = {"a": 3, "b": 0.5, "unknown": None}


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("a * b", 1.5),
        ("-(a + 1) / 8", -0.5),
        ("max(0, min(a, 2)) ** 2", 4),
        ("round(a * 0.333, 2)", 1.0),
        ("7 // 2 % 2", 1),
        (" 0.75 ", 0.75),
    ],
)
def test_a_formula_of_known_numbers_is_computed(text: str, number: float) -> None:
    assert computed(text, NAMES) == number


@pytest.mark.parametrize(
    "text",
    [
        "unknown * 2",
        "c",
        "a if b else 2",
        "__import__('os').getcwd()",
        "a.real",
        "[1][0]",
        "'1'",
        "1 / 0",
        "10 ** 10 ** 10",
        "9 ** 99",
        "1e308 * 10",
        "(-1) ** 0.5",
        "lambda: 1",
        "sqrt(-1)",
        "True",
        "round(1, -10 ** 12)",
        "a b",
        "",
        "(" * 400,
    ],
)
def test_whatever_else_stands_in_a_formula_is_not_computed(text: str) -> None:
    assert computed(text, NAMES) is None


def strengths(source: dict[str, object], slot: int) -> list[float]:
    loader = node("LoraLoaderModelOnly", lora_name="ink", strength_model=["9", slot])
    graph = {"9": source, "10": loader}
    found = extractor("comfyui").extract(post("/prompt", {"prompt": graph})).adapters
    return [one.strength.denoiser for one in found]


@pytest.mark.parametrize(
    ("source", "slot", "number"),
    [
        (node("PrimitiveFloat", value=0.25), 0, 0.25),
        (node("Float", Number="0.25"), 0, 0.25),
        (node("ComfyMathExpression", **{"expression": "a/4", "values.a": 1}), 0, 0.25),
        (node("ComfyMathExpression", **{"expression": "a*4", "values.a": 1}), 1, 4),
        (node("MathExpression|pysssss", expression="1/4"), 1, 0.25),
        (node("SimpleMath+", value="a-1", a=3), 1, 2),
        (node("easy mathFloat", a=1, b=4, operation="divide"), 0, 0.25),
        (node("CM_FloatBinaryOperation", a=1, b=4, op="Mul"), 0, 4),
    ],
)
def test_nodes_that_compute_with_constants_are_followed(
    source: dict[str, object], slot: int, number: float
) -> None:
    assert strengths(source, slot) == [number]


@pytest.mark.parametrize(
    ("source", "slot"),
    [
        (node("Mystery", value=1), 0),
        (node("SimpleMath+", value="a/2", a=3), 0),
        (node("ComfyMathExpression", **{"expression": "a", "values.a": ["8", 0]}), 0),
        (node("ComfyMathExpression", expression="a", a=["9", 0]), 0),
        (node("easy mathFloat", a=1, b=0, operation="divide"), 0),
        (node("easy mathInt", a=1, b=4, operation="divide"), 0),
        (node("easy mathInt", a=10**300, b=10**300, operation="multiply"), 0),
        (node("easy mathInt", a=float("nan"), b=1, operation="add"), 0),
    ],
)
def test_what_only_the_running_graph_can_tell_is_refused_with_both_nodes(
    source: dict[str, object], slot: int
) -> None:
    with pytest.raises(RefusedRequestError) as caught:
        strengths(source, slot)
    assert "/10/inputs/strength_model (LoraLoaderModelOnly)" in caught.value.message
    assert "node /9 (" in caught.value.message
