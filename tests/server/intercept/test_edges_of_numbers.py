"""Edges of strengths that nodes of ComfyUI compute, each where a wrong change was unnoticed."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.intercept.test_comfyui_flow import node
from tests.server.intercept.test_comfyui_links import loaded, refused


def graph(source: dict[str, Any], slot: int = 0, **more: Any) -> dict[str, Any]:
    taker = node("LoraLoaderModelOnly", lora_name="ink", strength_model=["9", slot])
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
