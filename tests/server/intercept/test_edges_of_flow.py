"""Edges of what a graph of ComfyUI applies, each where a wrong change was left unnoticed."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.intercept.decoys import drawn_from, loader
from tests.server.intercept.test_comfyui_flow import node
from tests.server.intercept.test_edges_of_comfyui import loaded


def optional(graph: dict[str, Any]) -> dict[str, bool]:
    return {name: one.optional for name, one in loaded(graph).items()}


def test_a_lora_that_is_only_saved_is_no_company_of_one_that_is_drawn_with() -> None:
    saved = node("Made Up LoraLoader", model=["4", 0], lora_name="clay", strength=1.0)
    graph = drawn_from(
        "1", **{"1": loader("ink", 1.0), "2": saved, "7": node("ModelSave", model=["2", 0])}
    )
    assert optional(graph) == {"ink": False, "clay": True}


@pytest.mark.parametrize("kind", ["Made Up Lora Sampler", "Made Up Lora Stack Sampler"])
@pytest.mark.parametrize("inputs", [{}, {"model": ["4", 0]}])
def test_a_node_of_loras_that_hands_on_pictures_draws_them_itself(
    kind: str, inputs: dict[str, Any]
) -> None:
    drawer = node(kind, lora_name="ink", strength=1.0, **inputs)
    graph = {
        **drawn_from("4"),
        "1": loader("clay", 1.0),
        "3": drawer,
    }
    stack = "Stack" in kind and not inputs
    assert optional(graph) == {"ink": stack, "clay": True}


def test_of_two_strengths_one_may_leave_a_lora_out() -> None:
    inputs = {"model": ["4", 0], "clip": ["4", 1], "lora_name": "ink"}
    unsure = node("Made Up LoraLoader", **inputs, strength=1.0, weight=0.0)
    graph = drawn_from("2", **{"1": unsure, "2": loader("clay", 1.0, "1")})
    assert optional(graph) == {"ink": True, "clay": False}


@pytest.mark.parametrize("last", [False, True])
def test_the_sampler_that_applies_most_tells_the_likeliest_strength(last: bool) -> None:
    graph = drawn_from("1", **{"1": loader("ink", 0.5)})
    plain = node("CLIPTextEncode", clip=["4", 1], text="a")
    other = node("KSampler", model=["1", 0], positive=["p", 0], negative=["p", 0])
    more = {"p": plain, "s": other}
    (one,) = loaded(graph | more if last else more | graph).values()
    assert [(each.denoiser, each.text_encoder) for each in one.strengths] == [(0.5, 0.5), (0.5, 0)]
