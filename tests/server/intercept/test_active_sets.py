"""Whatever set of LoRAs a server has active, at the strengths that it applies, is judged as such.

A LoRA that is found but never applied would cancel one that is, if only the sum of all were judged.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from loragate_server.adapter.adapter import Adapter, KeyCoverage
from loragate_server.adapter.reference import AdapterReference
from loragate_server.audit.uses import MOST_USES, Member, TooManyUsesError, uses_of
from loragate_server.intercept.extraction import RefusedRequestError
from testkit.waiting import at_most
from tests.server.intercept.active_sets import SETS, Applied
from tests.server.intercept.bodies import ROUTES, extractor, post
from tests.server.intercept.comfyui_server import comfyui
from tests.server.intercept.decoys import DECOYS, PATH, drawn_from, loader
from tests.server.intercept.requests_with_decoys import REQUESTS

thorough = settings(
    deadline=None,
    max_examples=500,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
MODELS = {**SETS, "comfyui": (comfyui,)}
SETTINGS: dict[str, dict[str, Any]] = {
    "declarative": {
        "rules": [{"path": "/generate", "reference": "$..lora", "strength": "$..scale"}]
    }
}

Effect = frozenset[tuple[str, float, float]]
"""What a set does: weights are linear in strengths, so a file that is there twice counts once."""


def effect(applied: Iterable[Applied]) -> Effect:
    sums: dict[str, tuple[float, float]] = {}
    for name, denoiser, text_encoder in applied:
        before = sums.get(name, (0.0, 0.0))
        sums[name] = (before[0] + denoiser, before[1] + text_encoder)
    rounded = {name: (round(one, 6), round(two, 6)) for name, (one, two) in sums.items()}
    return frozenset((name, *pair) for name, pair in rounded.items() if any(pair))


def name_of(reference: AdapterReference) -> str:
    name = (reference.path or reference.uri or "").removeprefix("/loras/")
    return name.removesuffix(".safetensors")


def judged(references: Sequence[AdapterReference]) -> set[Effect]:
    """The effects of all uses that the audit makes of some adapters."""
    coverage = KeyCoverage(1, 1, (), 1)
    members = [
        Member((Adapter(name_of(one), 1, "", {}, coverage, {}),), one.strengths, one.optional)
        for one in references
    ]
    return {
        effect((one.sha256, force.denoiser, force.text_encoder) for one, force in use.adaptation)
        for use in uses_of(members)
    }


def plain(name: str) -> str:
    return name.removeprefix("/loras/").removesuffix(".safetensors")


def check(server: str, body: Any) -> str:
    """How a request ends; fails where a server applies what is not judged."""
    request = post(ROUTES[server], body)
    try:
        references = extractor(server, **SETTINGS.get(server, {})).extract(request).adapters
        uses = judged(references) if references else set()
    except RefusedRequestError:
        return "refused"
    except TooManyUsesError:
        return "too many"
    for model in MODELS[server]:
        try:
            sets = list(model(request))
        except (KeyError, IndexError, TypeError, ValueError):
            continue  # an error of the server loads nothing
        for one in sets:
            active = effect((plain(name), *forces) for name, *forces in one)  # type: ignore[misc]
            assert not active or active in uses, (model, sorted(active), json.dumps(body))
    return "judged"


@pytest.mark.parametrize("server", sorted(REQUESTS))
def test_every_set_that_a_server_may_have_active_is_judged_as_it_is(server: str) -> None:
    ends: Counter[str] = Counter()

    @thorough
    @given(body=REQUESTS[server])
    def every(body: Any) -> None:
        ends[check(server, body)] += 1

    every()
    assert ends["judged"] > 200
    assert ends["refused"] + ends["too many"] < ends["judged"]


BOMB = ("bomb", 1.0, 1.0)


@pytest.mark.parametrize("kind", sorted(DECOYS))
def test_what_a_server_would_not_apply_takes_nothing_from_what_it_does(kind: str) -> None:
    server, body = DECOYS[kind]
    assert check(server, body) == "judged"
    request = post(ROUTES[server], body)
    uses = judged(extractor(server, **SETTINGS.get(server, {})).extract(request).adapters)
    assert effect([BOMB]) in uses


@pytest.mark.parametrize(
    ("server", "body"),
    [
        (
            "comfyui",
            {
                "prompt": drawn_from(
                    "2", **{"1": loader("bomb", 0.5), "2": loader("bomb", 0.5, "1")}
                )
            },
        ),
        ("a1111", {"prompt": "<lora:bomb:0.5> a harbour <lora:bomb:0.5>"}),
        (
            "sglang",
            {"lora_nickname": ["a", "b"], "lora_path": [PATH, PATH], "strength": 0.5},
        ),
        (
            "vllm_omni",
            {"lora": [{"name": n, "path": PATH, "scale": 0.5} for n in ("a", "b")]},
        ),
    ],
    ids=["comfyui", "a1111", "sglang", "vllm_omni"],
)
def test_halves_of_one_file_are_judged_as_the_whole_that_they_make(server: str, body: Any) -> None:
    uses = judged(extractor(server).extract(post(ROUTES[server], body)).adapters)
    assert uses == {effect([BOMB]), effect([("bomb", 0.5, 0.5)])}


def test_a_long_chain_of_loaders_is_certain_and_judged_in_few_uses() -> None:
    nodes = {f"{n}0": loader(f"style{n}", 0.5, f"{n - 1}0" if n > 1 else "4") for n in range(1, 9)}
    request = post("/prompt", {"prompt": drawn_from("80", **nodes)})
    references = extractor("comfyui").extract(request).adapters
    assert not any(one.optional or one.also for one in references)
    assert len(judged(references)) == 9 < MOST_USES


def test_two_strengths_of_a_node_whose_class_is_not_known_are_both_judged() -> None:
    inputs = {"lora_name": "bomb", "strength_model": 1, "strength": -1.5, "model": ["4", 0]}
    node = {"class_type": "Renamed", "inputs": {**inputs, "clip": ["4", 1]}}
    graph = drawn_from("1", **{"1": node})
    (one,) = extractor("comfyui").extract(post("/prompt", {"prompt": graph})).adapters
    assert {1.0, -1.5} <= {each.denoiser for each in one.strengths}


def test_the_same_tags_in_the_second_pass_are_the_same_adapters() -> None:
    tags = "".join(f"<lora:style{n}:1>" for n in range(7))
    body = {"prompt": f"a harbour {tags}", "hr_prompt": f"{tags} sharp", "enable_hr": True}
    references = extractor("a1111").extract(post(ROUTES["a1111"], body)).adapters
    assert len(references) == 7
    assert not any(one.optional for one in references)


EIGHT = [f"/loras/style{n}.safetensors" for n in range(8)]


@pytest.mark.parametrize(
    ("server", "body"),
    [
        ("a1111", {"prompt": "".join(f"<lora:style{n}:0.5>" for n in range(8))}),
        ("sglang", {"lora_nickname": EIGHT, "lora_path": EIGHT, "strength": [0.5] * 8}),
        ("vllm_omni", {"lora": [{"name": one, "path": one, "scale": 0.5} for one in EIGHT]}),
        ("cog", {"input": {"hf_loras": EIGHT, "lora_scales": [0.5] * 8}}),
        ("kserve", {"parameters": {"loras": EIGHT}}),
        ("declarative", {"loras": [{"lora": one, "scale": 0.5} for one in EIGHT]}),
    ],
)
def test_eight_adapters_in_one_place_are_judged_in_nine_uses(server: str, body: Any) -> None:
    settings = SETTINGS.get(server, {})
    references = extractor(server, **settings).extract(post(ROUTES[server], body)).adapters
    assert len(judged(references)) == 9


def test_a_request_with_more_loras_than_an_audit_takes_costs_linear_time() -> None:
    tags = "".join(f"<lora:style{n}:1>" for n in range(5_000))
    graph = {f"{n}0": loader(f"style{n}", 1.0, f"{n - 1}0" if n else "4") for n in range(5_000)}
    objects = [{"name": "n", "path": f"/loras/{n}"} for n in range(5_000)]
    began = time.perf_counter()
    for server, body in (
        ("a1111", {"prompt": tags, "hr_prompt": tags}),
        ("comfyui", {"prompt": drawn_from("10", **graph)}),
        ("vllm_omni", {"lora": objects}),
    ):
        assert len(extractor(server).extract(post(ROUTES[server], body)).adapters) >= 5_000
    assert time.perf_counter() - began < at_most(10.0)


def test_a_graph_in_which_loras_spread_over_many_nodes_is_read_in_time() -> None:
    graph = {f"l{n}": loader(f"style{n}", 1.0) for n in range(64)}
    for n in range(4000):
        one, other = (f"s{n - 1}", f"s{n // 2}") if n > 1 else ("l0", f"l{n + 1}")
        node = {"x": [one, 0], "y": [other, 0], "z": [f"l{n % 64}", 0]}
        graph[f"s{n}"] = {"class_type": "Made Up", "inputs": node}
    began = time.perf_counter()
    extractor("comfyui").extract(post("/prompt", {"prompt": drawn_from("s3999", **graph)}))
    assert time.perf_counter() - began < at_most(4.0)


@pytest.mark.parametrize(("count", "told_apart"), [(64, True), (65, False)])
def test_of_more_than_sixty_four_it_is_not_told_which_act_together(
    count: int, told_apart: bool
) -> None:
    body = {
        "lora_nickname": [f"n{n}" for n in range(count)],
        "lora_path": [f"/loras/{n}" for n in range(count)],
        "target": [f"transformer_{n}" for n in range(count)],
    }
    adapters = extractor("sglang").extract(post("/v1/set_lora", body)).adapters
    assert [one.optional for one in adapters] == [told_apart] * count
