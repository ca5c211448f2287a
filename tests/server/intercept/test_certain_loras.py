"""A LoRA that a server reads past never counts as company of those that it applies.

Two files may be harmless each alone and not together; a third one, in a place that nobody reads,
would cancel them, if all three were judged as one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loragate_server.adapter.reference import AdapterReference
from loragate_server.intercept.reading.findings import Found
from loragate_server.intercept.reading.sets import settled
from tests.server.intercept.active_sets import Applied
from tests.server.intercept.bodies import ROUTES, extractor, post
from tests.server.intercept.decoys import drawn_from, loader
from tests.server.intercept.test_active_sets import effect, judged

BOTH = [("one", 1.0, 1.0), ("other", 1.0, 1.0)]
TAGS = "<lora:one:1><lora:other:1>"
TAKEN = {"model": ["4", 0], "clip": ["4", 1]}


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def uses(server: str, body: Any) -> set[Any]:
    return judged(extractor(server).extract(post(ROUTES[server], body)).adapters)


@pytest.mark.parametrize(
    "prompt",
    [
        f"{TAGS} # <lora:third:-1>",
        f"{TAGS}\n# a <lora:third:-1>\nlake",
        f"{TAGS} {{<lora:third:-1>|a lake}}",
        f"{{a|{{b|c <lora:third:-1>}}}} {TAGS}",
        f"{TAGS} {{2$$<lora:third:-1>|b|c}}",
        f"{TAGS} {{<lora:third:-1>",
        f"{TAGS} <note:<lora:third:-1>",
    ],
)
def test_a_tag_that_may_be_left_out_of_a_prompt_is_no_company(prompt: str) -> None:
    adapters = extractor("a1111").extract(post(ROUTES["a1111"], {"prompt": prompt})).adapters
    assert [one.optional for one in adapters] == ["third" in str(one.path) for one in adapters]
    assert effect(BOTH) in judged(adapters)


@pytest.mark.parametrize("begin", ["<note:#>\n", "<note:{a|b>c}"])
def test_behind_a_tag_that_may_end_elsewhere_nothing_is_certain(begin: str) -> None:
    assert effect(BOTH) in uses("a1111", {"prompt": f"{begin}<lora:third:-1> {TAGS}"})


def test_tags_beside_choices_and_before_comments_are_certain() -> None:
    tags = "".join(f" {{a|b}} <lora:style{n}:1> # a\n" for n in range(8))
    assert len(uses("a1111", {"prompt": tags})) == 9


def test_what_comes_behind_the_fifth_of_a_list_of_fooocus_is_no_company() -> None:
    names = ["one", "None", "None", "other", "None", "third"]
    loras = [
        {"model_name": name if name == "None" else f"{name}.safetensors", "weight": weight}
        for name, weight in zip(names, [1.0] * 5 + [-1.0], strict=True)
    ]
    assert effect(BOTH) in uses("fooocus", {"prompt": "a", "loras": loras})
    five = [{"model_name": f"{n}.safetensors", "weight": 1.0} for n in range(5)]
    assert len(uses("fooocus", {"prompt": "a", "loras": five})) == 6


THIRD = "third.safetensors"


@pytest.mark.parametrize("key", ["1", "2", "3", "4", "6"])
@pytest.mark.parametrize("name", ["lora_b", "lora_02", "lora"])
def test_an_input_that_a_node_does_not_have_is_no_company(key: str, name: str) -> None:
    graph = drawn_from("2", **{"1": loader("one", 1.0), "2": loader("other", 1.0, "1")})
    graph[key]["inputs"] |= {name: THIRD, f"{name}_strength": -1.0}
    assert effect(BOTH) in uses("comfyui", {"prompt": graph})


UNKNOWN, POWER = "Made Up Lora Loader", "Power Lora Loader (rgthree)"
ROW = {"lora": THIRD, "on": True, "strength": -1.0}


@pytest.mark.parametrize(
    ("kind", "inputs"),
    [
        (UNKNOWN, {"lora_name": THIRD, "strength_model": -1.0, "bypass": True}),
        (UNKNOWN, {"lora_name": THIRD, "strength": -1.0, "toggle": False}),
        (UNKNOWN, {"lora_1": THIRD, "strength_1": -1.0, "lora_2": "None", "lora_count": 0}),
        (UNKNOWN, {"loras": [{"name": THIRD, "strength": -1.0}]}),
        (POWER, {"lora_1": {"lora": THIRD, "on": True, "strength_model": -1.0}}),
        (POWER, {"lora_1": {"on": True, "strength": 1.0, "lora": ROW}}),
        (POWER, {"my_lora": ROW}),
        ("easy loraStack", {"toggle": False, "num_loras": 1, "lora_1_name": THIRD}),
    ],
)
def test_a_lora_that_a_node_may_leave_out_is_no_company(kind: str, inputs: Any) -> None:
    chain = {"1": loader("one", 1.0), "2": loader("other", 1.0, "1")}
    chain["7"] = node(kind, model=["2", 0], clip=["2", 1], **inputs)
    assert effect(BOTH) in uses("comfyui", {"prompt": drawn_from("7", **chain)})


@pytest.mark.parametrize("unsure", [0, 2])
def test_one_file_is_as_uncertain_as_the_less_certain_place_that_names_it(unsure: int) -> None:
    references = [AdapterReference(path=f"/loras/{name}") for name in ("a", "b", "a")]
    references[unsure] = replace(references[unsure], optional=True)
    found = [Found(one, str(number)) for number, one in enumerate(references)]
    made = settled(found, [[0, 1], [1, 2]])
    assert [(one.reference.path, one.reference.optional) for one in made] == [
        ("/loras/a", True),
        ("/loras/b", False),
    ]


def test_of_two_loras_in_a_node_that_nobody_knows_none_is_certain() -> None:
    both = {"lora_name": "other.safetensors", "lora_b": THIRD, "strength_b": -1.0}
    chain = {"1": loader("one", 1.0)}
    chain["2"] = node("Made Up Lora Loader", model=["1", 0], clip=["1", 1], strength=1.0, **both)
    assert effect(BOTH) in uses("comfyui", {"prompt": drawn_from("2", **chain)})


Stack = Callable[[dict[str, Any]], Iterator[Applied]]
_names = st.sampled_from(["one", "other", "third"])
_forces = st.sampled_from([1.0, -1.0, 0.5])


def _inputs(**patterns: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Inputs whose names hold a number, for four LoRAs."""
    each = {key.replace("N", str(n)): one for key, one in patterns.items() for n in range(1, 5)}
    return st.fixed_dictionaries(each)


def _file(name: str) -> str:
    return f"{name}.safetensors"


def efficiency(inputs: dict[str, Any]) -> Iterator[Applied]:
    for n in range(1, inputs["lora_count"] + 1):
        force = inputs[f"lora_wt_{n}"]
        yield inputs[f"lora_name_{n}"], force, force


def comfyroll(inputs: dict[str, Any]) -> Iterator[Applied]:
    for n in range(1, 4):
        if inputs[f"switch_{n}"] == "On":
            yield (
                inputs[f"lora_name_{n}"],
                inputs[f"model_weight_{n}"],
                inputs[f"clip_weight_{n}"],
            )


def easy_use(inputs: dict[str, Any]) -> Iterator[Applied]:
    if inputs["toggle"] not in (False, None, "False"):
        for n in range(1, inputs["num_loras"] + 1):
            yield (
                inputs[f"lora_{n}_name"],
                inputs[f"lora_{n}_strength"],
                inputs[f"lora_{n}_strength"],
            )


def rgthree_stack(inputs: dict[str, Any]) -> Iterator[Applied]:
    for n in range(1, 5):
        yield inputs[f"lora_0{n}"], inputs[f"strength_0{n}"], inputs[f"strength_0{n}"]


def rgthree_power(inputs: dict[str, Any]) -> Iterator[Applied]:
    for key, value in inputs.items():
        whole = key.upper().startswith("LORA_") and {"on", "lora", "strength"} <= set(value)
        if whole and value["on"]:
            yield value["lora"], value["strength"], value["strength"]


def lora_manager(inputs: dict[str, Any]) -> Iterator[Applied]:
    for one in inputs["loras"]:
        if one.get("active", False):
            yield one["name"], one["strength"], one["strength"]


_files = _names.map(_file) | st.just("None")
_power = st.fixed_dictionaries(
    {"lora": _names.map(_file), "on": st.sampled_from([True, False, 0])},
    optional={"strength": _forces},
)
STACKS: dict[str, tuple[Stack, st.SearchStrategy[dict[str, Any]]]] = {
    "LoRA Stacker": (
        efficiency,
        st.builds(
            lambda inputs, count: {"input_mode": "simple", "lora_count": count, **inputs},
            _inputs(lora_name_N=_files, lora_wt_N=_forces),
            st.integers(0, 4),
        ),
    ),
    "CR LoRA Stack": (
        comfyroll,
        _inputs(
            switch_N=st.sampled_from(["On", "Off", "on"]),
            lora_name_N=_files,
            model_weight_N=_forces,
            clip_weight_N=_forces,
        ),
    ),
    "easy loraStack": (
        easy_use,
        st.builds(
            lambda inputs, on, count: {
                "toggle": on,
                "num_loras": count,
                "lora_count": 9,  # of another pack
                "mode": "simple",
                **inputs,
            },
            _inputs(lora_N_name=_files, lora_N_strength=_forces),
            st.sampled_from([True, False, "False"]),
            st.integers(0, 4),
        ),
    ),
    "Lora Loader Stack (rgthree)": (
        rgthree_stack,
        _inputs(lora_0N=_files, strength_0N=_forces, lora_N=_files),
    ),
    "Power Lora Loader (rgthree)": (
        rgthree_power,
        st.dictionaries(st.sampled_from(["lora_1", "LoRA_2", "xlora_3", "lora_4"]), _power),
    ),
    "Lora Stacker (LoraManager)": (
        lora_manager,
        st.fixed_dictionaries(
            {
                "loras": st.lists(
                    st.fixed_dictionaries(
                        {"name": _names, "strength": _forces},
                        optional={"active": st.booleans()},
                    ),
                    max_size=4,
                ),
                "text": st.just("<lora:one:1>"),
            }
        ),
    ),
}


def stacked(kind: str, inputs: dict[str, Any]) -> dict[str, Any]:
    if "stack" not in kind.casefold() or "Loader" in kind:
        return {"prompt": drawn_from("1", **{"1": node(kind, **TAKEN, **inputs)})}
    taker = node("CR Apply LoRA Stack", **TAKEN, lora_stack=["1", 0])
    return {"prompt": drawn_from("2", **{"1": node(kind, **inputs), "2": taker})}


@pytest.mark.parametrize("kind", sorted(STACKS))
def test_what_a_stack_applies_is_judged_without_what_it_leaves_out(kind: str) -> None:
    model, requests = STACKS[kind]

    @settings(max_examples=150, deadline=None, derandomize=True)
    @given(inputs=requests)
    def check(inputs: dict[str, Any]) -> None:
        applied = [
            (name.removesuffix(".safetensors"), *forces)
            for name, *forces in model(inputs)
            if name != "None"
        ]
        active = effect(applied)  # type: ignore[arg-type]
        assert not active or active in uses("comfyui", stacked(kind, inputs))

    check()


EIGHT = [f"style{n}" for n in range(1, 9)]


@pytest.mark.parametrize(
    ("kind", "inputs"),
    [
        (
            "LoRA Stacker",
            {
                "input_mode": "simple",
                "lora_count": 8,
                **{f"lora_name_{n}": _file(one) for n, one in enumerate(EIGHT, 1)},
                **{f"lora_wt_{n}": 1.0 for n in range(1, 9)},
            },
        ),
        (
            "Power Lora Loader (rgthree)",
            {f"lora_{one}": {"on": True, "lora": _file(one), "strength": 1} for one in EIGHT},
        ),
        (
            "Lora Stacker (LoraManager)",
            {"loras": [{"name": one, "strength": 1, "active": True} for one in EIGHT]},
        ),
    ],
)
def test_eight_loras_that_a_known_stack_applies_are_certain(kind: str, inputs: Any) -> None:
    assert len(uses("comfyui", stacked(kind, inputs))) == 9
