"""Properties that hold for every request to every image server."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loragate_server.intercept.reading.json_spans import locate, replace_strings
from loragate_server.intercept.registry import EXTRACTORS
from testkit.waiting import at_most, busyness
from tests.server.intercept.bodies import ROUTES, extractor, post
from tests.server.intercept.carriers import CARRIERS, harmless, merged, mutated
from tests.server.intercept.properties import (
    answers_or_refuses,
    finds_the_lora,
    loads_nothing,
    rewrites_only_the_reference,
)
from tests.server.intercept.server_models import MODELS, nothing_passes_unaudited
from tests.server.intercept.strategies import requests, requests_to, values

EXTRACTOR = {name: extractor(name) for name in EXTRACTORS}
quick = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])


@quick
@given(request=requests)
def test_every_server_answers_or_refuses_whatever_comes(request: Any) -> None:
    for server in EXTRACTOR.values():
        answers_or_refuses(server, request)


@pytest.mark.parametrize("name", sorted(CARRIERS))
def test_a_lora_is_found_wherever_the_server_would_honour_it(name: str) -> None:
    @quick
    @given(carrier=CARRIERS[name])
    def check(carrier: Any) -> None:
        finds_the_lora(EXTRACTOR[name], carrier)

    check()


@pytest.mark.parametrize("name", sorted(MODELS))
def test_what_a_model_of_the_server_would_load_never_passes_unaudited(name: str) -> None:
    honoured = 0

    @settings(quick, max_examples=300, derandomize=True)
    @given(request=mutated(CARRIERS[name]) | requests_to(st.just(ROUTES[name])))
    def check(request: Any) -> None:
        nonlocal honoured
        honoured += nothing_passes_unaudited(name, EXTRACTOR[name], request)

    check()
    assert honoured >= 5


@pytest.mark.parametrize(
    "name",
    ["sglang", "vllm_omni", "comfyui", "a1111", "stable_diffusion_cpp", "localai", "declarative"],
)
def test_a_rewritten_body_differs_in_the_reference_alone(name: str) -> None:
    rewritten = 0

    @quick
    @given(carrier=CARRIERS[name])
    def check(carrier: Any) -> None:
        nonlocal rewritten
        rewritten += rewrites_only_the_reference(EXTRACTOR[name], carrier)

    check()
    assert rewritten >= 50


@pytest.mark.parametrize(
    "name",
    ["vllm_omni", "a1111", "stable_diffusion_cpp", "localai", "cog", "kserve", "declarative"],
)
def test_a_request_without_a_lora_passes(name: str) -> None:
    @quick
    @given(body=harmless)
    def check(body: dict[str, Any]) -> None:
        loads_nothing(EXTRACTOR[name], ROUTES[name], merged(body, {"prompt": "a harbour"}))

    check()


@quick
@given(value=values, indent=st.sampled_from([None, 2]))
def test_a_string_of_a_json_text_is_replaced_in_place(value: Any, indent: int | None) -> None:
    text = json.dumps({"before": value, "here": ["x", value], "after": value}, indent=indent)
    begin, end = locate(text, ("here", 0))
    assert text[begin:end] == '"x"'
    changed = replace_strings(text, {("here", 0): "ü"})
    assert changed == f'{text[:begin]}"\\u00fc"{text[end:]}'


BIG = "A" * 10_000_000


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("a1111", {"prompt": "a harbour", "init_images": [BIG]}),
        ("stable_diffusion_cpp", {"prompt": "a harbour", "init_image": BIG}),
        ("localai", {"prompt": "a harbour", "ref_images": [BIG]}),
        ("vllm_omni", {"prompt": "a harbour", "image": BIG}),
        ("cog", {"input": {"prompt": "a harbour", "image": f"data:image/png;base64,{BIG}"}}),
        ("comfyui", {"prompt": {"1": {"class_type": "LoadImage64", "inputs": {"image": BIG}}}}),
    ],
)
def test_a_large_picture_takes_no_more_than_linear_work(name: str, body: dict[str, Any]) -> None:
    request = post(ROUTES[name], body)
    began = time.perf_counter()
    assert EXTRACTOR[name].extract(request).adapters == ()
    assert time.perf_counter() - began < at_most(2.0)


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("a1111", {"prompt": "a harbour at dawn, " * 100}),
        ("stable_diffusion_cpp", {"prompt": "a harbour at dawn, " * 100}),
        ("localai", {"prompt": "a harbour at dawn, " * 100}),
        ("vllm_omni", {"prompt": "a harbour at dawn, " * 100}),
        ("cog", {"input": {"prompt": "a harbour at dawn, " * 100}}),
        (
            "comfyui",
            {
                "prompt": {
                    str(number): {
                        "class_type": "KSampler",
                        "inputs": {"seed": 1, "model": ["1", 0], "text": "a harbour " * 8},
                    }
                    for number in range(14)
                }
            },
        ),
    ],
)
def test_a_request_without_a_lora_takes_less_than_a_millisecond(
    name: str, body: dict[str, Any]
) -> None:
    request = post(ROUTES[name], body)
    assert 1800 < len(request.body) < 2400
    taken = []
    for _ in range(50):
        began = time.perf_counter()
        EXTRACTOR[name].extract(request)
        taken.append(time.perf_counter() - began)
    assert min(taken) < 0.001 * busyness()
