"""Edges of the extractor of ComfyUI, each where a wrong change was left unnoticed."""

from __future__ import annotations

from typing import Any

import pytest

from loragate_server.adapter.reference import AdapterReference
from loragate_server.intercept.extraction import RefusedRequestError
from tests.server.intercept.bodies import extractor, post
from tests.server.intercept.decoys import drawn_from, loader

PLAIN = {"class_type": "CLIPTextEncode", "inputs": {"clip": ["4", 1], "text": "a"}}
"""A condition that no LoRA acts on."""


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def sampler(model: str) -> dict[str, Any]:
    return node("KSampler", model=[model, 0], positive=["6", 0], negative=["6", 0])


def loaded(graph: dict[str, Any], **settings: Any) -> dict[str, AdapterReference]:
    adapters = extractor("comfyui", **settings).extract(post("/prompt", {"prompt": graph})).adapters
    names = [str(one.path).removeprefix("/loras/").removesuffix(".safetensors") for one in adapters]
    return dict(zip(names, adapters, strict=True))


def pairs(reference: AdapterReference) -> set[tuple[float, float]]:
    return {(one.denoiser, one.text_encoder) for one in reference.strengths}


def test_where_a_file_is_no_lora_it_is_said_how_to_leave_the_input_out() -> None:
    comfyui = extractor("comfyui")
    remedy = "If it is no LoRA, add Made Up.{} to intercept.extractors.comfyui.settings."
    for place, name in (("/prompt/1/inputs/file/0", "file"), ("/prompt/1", "INPUT")):
        assert comfyui.unless_adapter(place, "Made Up").startswith(remedy.format(name))
    for holder in ("LoraLoader", ""):
        assert comfyui.unless_adapter("/prompt/1/inputs/lora_name", holder) == ""


def test_what_names_a_lora_is_told_by_its_class() -> None:
    graph = drawn_from("1", **{"1": loader("ink", 1.0)})
    assert extractor("comfyui").extract(post("/prompt", {"prompt": graph})).holders == (
        "LoraLoader",
    )


@pytest.mark.parametrize(
    ("kind", "inputs", "refused"),
    [
        ("UpscaleModelLoader", {"model_name": "other.pth"}, False),
        ("Made Up Loader", {"model_name": "other.safetensors"}, True),
        ("ControlNet With Base", {"ckpt_name": "other.safetensors"}, True),
    ],
)
def test_a_model_that_no_lora_changes_is_no_other_base(
    kind: str, inputs: dict[str, str], refused: bool
) -> None:
    graph = drawn_from("1", **{"1": loader("ink", 1.0), "7": node(kind, **inputs)})
    if refused:
        with pytest.raises(RefusedRequestError, match="other"):
            loaded(graph, base_names=["b.safetensors"])
    else:
        assert list(loaded(graph, base_names=["b.safetensors"])) == ["ink"]


def merged(ratio: Any, **more: Any) -> dict[str, AdapterReference]:
    merge = node("ModelMergeSimple", model1=["1", 0], model2=["2", 0], ratio=ratio)
    loaders = {"1": loader("ink", 1.0), "2": loader("clay", 1.0)}
    graph = drawn_from("1", **loaders, **more, **{"7": merge, "6": PLAIN, "3": sampler("7")})
    return loaded(graph)


def test_a_lora_of_a_model_that_counts_nothing_in_a_merge_may_be_left_out() -> None:
    found = merged(0.0)
    assert {name: one.optional for name, one in found.items()} == {"ink": True, "clay": False}
    assert pairs(found["clay"]) == {(1.0, 0.0)}


def test_the_ratio_of_a_merge_may_come_by_a_link() -> None:
    found = merged(["8", 0], **{"8": node("PrimitiveFloat", value=0.25)})
    assert pairs(found["ink"]) == {(0.25, 0.0)}


def test_a_merge_that_is_not_weighted_is_its_first_model() -> None:
    graph = drawn_from("1", **{"1": loader("ink", 1.0), "2": loader("clay", 1.0)})
    merge = node("ModelMergeSimple", model1=["1", 0], model2=["2", 0])
    found = loaded(graph | {"7": merge, "6": PLAIN, "3": sampler("7")})
    assert pairs(found["ink"]) == {(1.0, 0.0)}
    assert (found["ink"].optional, found["clay"].optional) == (False, True)


@pytest.mark.parametrize(("slot", "carries"), [(0, True), (-2, True), (-3, False), (2, False)])
def test_an_output_may_be_counted_from_the_end(slot: int, carries: bool) -> None:
    graph = drawn_from("1", **{"1": loader("ink", 1.0), "2": loader("clay", 1.0)})
    graph["6"], graph["3"] = PLAIN, sampler("2")
    graph["3"]["inputs"]["model"][1] = slot
    assert loaded(graph)["clay"].optional is not carries


def test_out_of_a_loader_of_models_comes_nothing_for_the_text_encoder() -> None:
    graph = drawn_from(
        "2",
        **{
            "1": loader("ink", 0.5),
            "7": node("Made Up", model=["1", 0], clip=["1", 1]),
            "2": node("LoraLoaderModelOnly", model=["7", 0], lora_name="clay", strength_model=1.0),
            "6": PLAIN,
            "3": sampler("2"),
        },
    )
    assert (0.5, 0.0) in pairs(loaded(graph)["ink"])
    assert pairs(loaded(graph)["clay"]) == {(1.0, 0.0)}


def test_a_loader_that_does_not_choose_takes_all_that_comes_in() -> None:
    unknown = loader("clay", 1.0, "1")
    unknown["class_type"] = "Made Up LoraLoader"
    found = loaded(drawn_from("2", **{"1": loader("ink", 0.5), "2": unknown}))
    assert pairs(found["ink"]) == {(0.5, 0.5)}


def chain(count: int) -> dict[str, Any]:
    """Loaders on top of each other, of which the last is called 1."""
    loaders = {
        f"l{n}": loader(f"style{n}", 1.0, f"l{n - 1}" if n else "4") for n in range(1, count)
    }
    first = {"l0": loader("style0", 1.0)}
    return drawn_from(
        "1",
        **first,
        **loaders,
        **{"1": node("Made Up", model=[f"l{count - 1}", 0]), "6": PLAIN, "3": sampler("1")},
    )


def test_of_sixty_four_loras_it_is_told_how_they_act_and_of_more_it_is_not() -> None:
    few, many = loaded(chain(64)), loaded(chain(65))
    assert (len(few), len(many)) == (64, 65)
    assert all(not one.optional and pairs(one) == {(1.0, 0.0)} for one in few.values())
    assert all(pairs(one) == {(1.0, 1.0)} for one in many.values())


@pytest.mark.parametrize(("count", "certain"), [(5000, True), (5001, False)])
def test_a_graph_of_five_thousand_nodes_is_followed(count: int, certain: bool) -> None:
    graph = drawn_from("2", **{"1": loader("ink", 1.0), "2": loader("clay", 1.0, "1")})
    graph |= {f"n{n}": {"class_type": "Note", "inputs": {}} for n in range(count - len(graph))}
    assert all(one.optional is not certain for one in loaded(graph).values())


def switched(count: int) -> dict[str, Any]:
    """A switch between LoRAs, all on top of one that is certain."""
    choices = {f"l{n}": loader(f"style{n}", 1.0, "1") for n in range(count)}
    switch = node("AnySwitch", **{f"input{n}": [f"l{n}", 0] for n in range(count)})
    return {"1": loader("ink", 1.0), "7": switch, "6": PLAIN, **choices}


@pytest.mark.parametrize(("count", "certain"), [(31, True), (32, False)])
def test_thirty_two_ways_of_one_node_are_told_apart(count: int, certain: bool) -> None:
    graph = drawn_from("7", **switched(count), **{"3": sampler("7")})
    assert loaded(graph)["ink"].optional is not certain


@pytest.mark.parametrize(("more", "certain"), [(False, True), (True, False)])
def test_five_hundred_and_twelve_ways_of_all_samplers_are_told_apart(
    more: bool, certain: bool
) -> None:
    # 31 of the switch, 32 of each of 15 samplers behind it, and that of the first LoRA alone.
    behind = {f"b{n}": loader(f"more{n}", 1.0, "7") for n in range(15)}
    samplers = {f"s{n}": sampler(f"b{n}") for n in range(15)}
    graph = drawn_from("1", **switched(31), **behind, **samplers, **{"3": sampler("1")})
    if more:
        graph |= {"x": loader("clay", 1.0, "1"), "y": sampler("x")}
    assert loaded(graph)["ink"].optional is not certain


def test_a_graph_names_ten_thousand_loras_at_most() -> None:
    def graph(count: int) -> dict[str, Any]:
        return {"1": node("Made Up Loras", loras=["ink.safetensors"] * count)}

    comfyui = extractor("comfyui")
    assert comfyui.extract(post("/prompt", {"prompt": graph(10_000)})).adapters
    with pytest.raises(RefusedRequestError, match="names more LoRAs than an audit takes in"):
        comfyui.extract(post("/prompt", {"prompt": graph(10_001)}))


def drawn_by(**between: Any) -> list[AdapterReference]:
    """The LoRAs of a graph that loads one file twice, at 1 and at 0.5."""
    loaders = {"1": loader("ink", 1.0), "2": loader("ink", 0.5)}
    graph = {**drawn_from("4"), **loaders, **between}
    return list(extractor("comfyui").extract(post("/prompt", {"prompt": graph})).adapters)


def test_a_node_that_is_not_known_may_hand_on_two_models_as_one() -> None:
    both = drawn_by(**{"7": node("Made Up", a=["1", 0], b=["2", 0]), "3": sampler("7")})
    assert [pairs(one) for one in both] == [{(1.0, 0.0)}, {(0.5, 0.0)}]


def test_what_a_guider_takes_as_two_models_stays_apart_behind_a_reroute() -> None:
    inputs = {"model": ["1", 0], "model2": ["2", 0], "positive": ["6", 0]}
    (one,) = drawn_by(
        g=node("DualModelGuider", **inputs),
        r=node("Reroute", guider=["g", 0]),
        **{"3": node("SamplerCustomAdvanced", guider=["r", 0])},
    )
    assert pairs(one) == {(1.0, 0.0), (0.5, 0.0)}


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
