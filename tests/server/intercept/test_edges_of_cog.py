"""Edges of the extractor of cog, each where a wrong change was left unnoticed."""

from __future__ import annotations

from typing import Any

import pytest

from loragate_server.adapter.reference import AdapterReference
from loragate_server.intercept.extraction import Extraction, RefusedRequestError
from tests.server.intercept.bodies import extractor, post

INK = "https://files.example.org/ink.safetensors"


def adapters(**inputs: Any) -> tuple[AdapterReference, ...]:
    return extractor("cog").extract(post("/predictions", {"input": inputs})).adapters


def strengths(**inputs: Any) -> set[float]:
    (one,) = adapters(**inputs)
    return {each.denoiser for each in one.strengths}


def test_a_training_that_is_allowed_names_no_adapter() -> None:
    request = post("/trainings", {"input": {"lora": INK}})
    assert extractor("cog", allow_training=True).extract(request) == Extraction()


def test_switches_and_secrets_are_no_loras_whatever_they_are_called() -> None:
    assert adapters(use_lora=True, lora_rank=8, lora_token="abc", hf_api_token="abc") == ()


@pytest.mark.parametrize(
    "inputs",
    [
        {"my_lora_url": INK, "my_lora_scale": 0.5},
        {"my_lora": INK, "my_lora_strength": 0.5},
        {"weights": INK, "weights_scale": 0.5},
        {"style_loras": [INK], "lora_scales": [0.5]},
        {"style_loras": [INK], "style_lora_scales": [0.5]},
        {"lora_1": INK, "lora_scale_1": 0.5},
        {"lora1": INK, "lora_scale1": 0.5},
        {"custom_weights": INK, "lora_scale": 0.5},
    ],
)
def test_a_strength_under_any_usual_name_is_judged_and_that_of_training_too(
    inputs: dict[str, Any],
) -> None:
    assert strengths(**inputs) == {0.5, 1.0}


def test_the_strength_of_another_lora_is_not_taken() -> None:
    assert strengths(my_lora=INK, lora_scale=0.5) == {1.0}


def test_a_strength_that_is_none_or_no_list_of_any_is_as_trained() -> None:
    assert strengths(lora=INK, lora_scale=None) == {1.0}
    assert strengths(hf_loras=["studio/ink"], lora_scales=[]) == {1.0}


def test_two_strengths_of_one_lora_are_refused_and_the_same_one_twice_is_not() -> None:
    assert strengths(lora=INK, lora_scale=0.5, lora_strength=0.5) == {0.5, 1.0}
    with pytest.raises(RefusedRequestError, match="has several strengths"):
        adapters(lora=INK, lora_scale=0.5, lora_strength=0.9)


def test_an_input_may_be_nested_a_hundred_deep() -> None:
    def settings(depth: int) -> str:
        return '{"a":' * depth + "1" + "}" * depth

    assert adapters(settings=settings(100)) == ()
    with pytest.raises(RefusedRequestError, match="is nested too deep"):
        adapters(settings=settings(101))


def test_a_workflow_as_text_may_hold_numbers_that_are_none_as_comfyui_writes_them() -> None:
    text = '{"1": {"class_type": "A", "inputs": {}, "is_changed": [NaN]}}'
    assert adapters(workflow_json=text) == ()


@pytest.mark.parametrize("name", ["lora_token", "tokenizer_lora", "api_key"])
def test_a_file_of_weights_is_no_secret_whatever_it_is_called(name: str) -> None:
    assert [one.uri for one in adapters(**{name: INK})] == [INK]
    assert [one.uri for one in adapters(**{name: [INK]})] == [INK]
    assert adapters(**{name: "abc"}) == ()
