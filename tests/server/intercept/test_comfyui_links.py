"""LoRAs that come to a node of ComfyUI by links: put together, chosen, or made while it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from loragate_server.adapter.reference import AdapterReference
from loragate_server.intercept.extraction import RefusedRequestError
from loragate_server.intercept.reading.tags import tags_in
from loragate_server.intercept.servers.comfyui_graph import nodes_of
from loragate_server.intercept.servers.comfyui_links import Links
from tests.server.intercept.bodies import extractor, post
from tests.server.intercept.test_comfyui_flow import node, pairs
from tests.server.intercept.verdicts import EVIL, found


def loaded(settings: dict[str, Any] | None = None, /, **graph: Any) -> tuple[AdapterReference, ...]:
    server = extractor("comfyui", **(settings or {}))
    return server.extract(post("/prompt", {"prompt": graph})).adapters


def paths(**graph: Any) -> list[str | None]:
    return [one.path for one in loaded(**graph)]


def refused(**graph: Any) -> str:
    with pytest.raises(RefusedRequestError) as caught:
        loaded(**graph)
    return caught.value.message


MODEL = {"model": ["4", 0]}
READERS = {
    "LoraTagLoader": "text",
    "PCLazyLoraLoader": "text",
    "PCLazyLoraLoaderAdvanced": "text",
    "PCLoraHooksFromText": "text",
    "PCLazyTextEncode": "text",
    "ImpactWildcardEncode": "wildcard_text",
    "FaceDetailer": "wildcard",
    "LoRA Text Loader (LoraManager)": "lora_syntax",
    "WanVideo Lora Select From Text (LoraManager)": "lora_syntax",
    "MultiLoraLoader-70bf3d77": "text",
    "Some Lora Loader From Text": "prompt",
    "Power Prompt (rgthree)": "prompt",
    "SDXL Power Prompt - Positive (rgthree)": "prompt_g",
    "easy fullLoader": "positive",
    "PromptExtraNetworks": "text",
}
MAKERS = (
    "ShowText|pysssss",
    "RegexReplace",
    "Text Concatenate",
    "StringReverse",
    "LLM",
    "Any Node",
)


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("maker", MAKERS)
def test_a_text_for_loras_from_a_node_that_is_not_known_is_refused(kind: str, maker: str) -> None:
    said = refused(a=node(maker, text="<X:evil:1>"), b=node(kind, **{READERS[kind]: ["a", 0]}))
    for part in ("/b", kind[:40], READERS[kind]):
        assert part in said


@pytest.mark.parametrize("kind", READERS)
def test_tags_that_nodes_of_comfyui_put_together_are_read(kind: str) -> None:
    taker = node(kind, **{READERS[kind]: ["a", 0]}, **MODEL)
    joined = node("StringConcatenate", string_a="<lo", string_b=["c", 0], delimiter="ra:")
    given = node("PrimitiveString", value="evil:1>")
    assert paths(a=joined, b=taker, c=given) == [EVIL]
    replaced = node("StringReplace", string="<X:evil:1>", find="X", replace="lora")
    assert paths(a=replaced, b=taker) == [EVIL]


@pytest.mark.parametrize("kind", sorted({*READERS} - {"MultiLoraLoader-70bf3d77"}))
def test_a_text_without_tags_passes_by_a_link(kind: str) -> None:
    joined = node("StringConcatenate", string_a="a cat", string_b="<3", delimiter=", ")
    assert paths(a=joined, b=node(kind, **{READERS[kind]: ["a", 0]}, **MODEL)) == []


def test_a_text_that_no_node_of_loras_takes_may_be_made_by_any_node() -> None:
    graph = {"a": node("LLM", prompt="a cat"), "b": node("CLIPTextEncode", text=["a", 0])}
    assert paths(**graph) == []


def test_a_tag_in_a_constant_counts_once_though_a_node_takes_it_by_a_link() -> None:
    (one,) = loaded(
        a=node("PrimitiveString", value="<lora:evil:1:0>"), b=node("LoraTagLoader", text=["a", 0])
    )
    assert one.strength.denoiser == 1.0
    assert (1.0, 0.0) in pairs(one)


def test_an_extractor_hands_on_the_tags_of_its_text() -> None:
    graph = {
        "a": node("LoraTextExtractor-b1f83aa2", text="a cat <lora:evil:0.5:1>"),
        "b": node("MultiLoraLoader-70bf3d77", text=["a", 1], **MODEL),
    }
    assert {one.path for one in loaded(**graph)} == {EVIL}


@pytest.mark.parametrize(
    ("source", "taker"),
    [
        (
            node("TrainLoraNode", existing_lora="[None]", seed=1),
            node("LoraModelLoader", lora=["a", 0]),
        ),
        (node("LoRA Trainer", steps=9), node("Apply Lora", lora_model=["a", 0])),
        (node("ExtractLora", rank=8), node("LoraLoader", lora_name=["a", 0])),
        (node("Mystery"), node("CR Apply LoRA Stack", lora_stack=["a", 0])),
        (node("Mystery"), node("Efficient Loader", lora_stack=["a", 0])),
        (node("Any Switch", a=["z", 0]), node("Efficient Loader", lora_stack=["a", 0])),
        (node("Mystery"), node("Lora Stacker (LoraManager)", lora_stack=["a", 0], loras=[])),
    ],
)
def test_loras_that_are_made_or_come_from_elsewhere_are_refused(source: Any, taker: Any) -> None:
    said = refused(a=source, b=taker)
    assert "/b/inputs/" in said
    assert taker["class_type"] in said


def test_a_trained_lora_may_be_saved() -> None:
    source = node("TrainLoraNode", existing_lora="[None]", seed=1, lora_dtype="bf16")
    assert paths(a=source, b=node("SaveLoRA", lora=["a", 0], prefix="loras/mine")) == []


def test_a_stack_passes_through_reroutes_and_switches_of_stacks() -> None:
    stack = node("CR LoRA Stack", switch_1="On", lora_name_1="evil", model_weight_1=1)
    graph = {
        "a": stack,
        "b": node("Any Switch (rgthree)", any_01=["a", 0]),
        "c": node("CR Apply LoRA Stack", lora_stack=["b", 0], **MODEL),
    }
    assert paths(**graph) == [EVIL]


@pytest.mark.parametrize(
    "one",
    [
        node("LoraLoaderByIndex", index=3),
        node("LoraLoaderByIndex", index=["9", 0]),
        node("LoRA Loader (by Index)", index=3, lora_list="good.safetensors"),
        node("Load Lora From Subfolder", subfolder="old", lora="good.safetensors"),
        node("Lora Cycler (LoraManager)", cycler_config={"current_index": 2}),
        node("Lora Randomizer (LoraManager)", randomizer_config={"roll_mode": "always"}, loras=[]),
        node("Random LoRA Loader", folder_filter="x"),
        node("LoRA Picker", lora_seed=4),
        node("LoraLoaderSequential", strength_model=1.0),
    ],
)
def test_a_node_that_chooses_a_lora_itself_is_refused(one: Any) -> None:
    said = refused(k=one)
    assert "/k" in said
    assert one["class_type"] in said


@pytest.mark.parametrize(
    "one",
    [
        node("Power Lora Loader (rgthree)", PowerLoraLoaderHeaderWidget={"type": "x"}, **MODEL),
        node("LoraLoader", lora_name="None", seed=3),
        node("ImageColorAdjust", seed=3, path="x"),
        node("Prompt (LoraManager)", text=["9", 0], seed=3),
        node("Save Image (LoraManager)", filename_prefix="x", file_format="png"),
        node("FloraSampler", seed=3),
    ],
)
def test_a_node_without_a_lora_passes(one: Any) -> None:
    assert paths(k=one) == []


def test_a_widget_of_lora_manager_names_files_as_lora_manager_looks_them_up(tmp_path: Path) -> None:
    for name in ("a/ink.safetensors", "b/ink.safetensors", "c/clay.safetensors"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    rows = [
        {"name": "ink", "strength": "0", "clipStrength": "2", "active": True},
        {"name": "c/clay", "strength": 0.5, "active": True},
        {"name": "gone", "strength": 0.5, "active": False},
    ]
    loader = node("Lora Loader (LoraManager)", text="", loras={"__value__": rows}, clip=["4", 1])
    found = loaded({"lora_folder": str(tmp_path)}, k=loader)
    assert {one.path.removeprefix(f"{tmp_path}/"): pairs(one) for one in found if one.path} == {
        "a/ink.safetensors": {(0.0, 2.0)},
        "b/ink.safetensors": {(0.0, 2.0)},
        "c/clay.safetensors": {(0.5, 0.5)},
    }


def test_lora_manager_looks_up_anew_what_a_stack_of_others_holds(tmp_path: Path) -> None:
    for name in ("a/ink.safetensors", "b/ink.safetensors"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    stack = node("CR LoRA Stack", switch_1="On", lora_name_1="b/ink.safetensors", model_weight_1=1)
    loader = node("Lora Loader (LoraManager)", lora_stack=["k", 0], loras=[], **MODEL)
    settings = {"lora_folder": str(tmp_path)}
    one = [each.path for each in loaded(settings, k=stack)]
    assert one == [f"{tmp_path}/b/ink.safetensors"]
    both = {each.path for each in loaded(settings, k=stack, m=loader)}
    assert both == {f"{tmp_path}/a/ink.safetensors", f"{tmp_path}/b/ink.safetensors"}


def test_wildcards_pass_where_the_operator_says_so() -> None:
    one = node("ImpactWildcardEncode", wildcard_text="a __colour__ cat <lora:evil:1>")
    assert [each.path for each in loaded({"allow_wildcards": True}, k=one)] == [EVIL]


def test_a_text_that_ends_as_a_file_does_hides_no_tag() -> None:
    one = node("LoraTagLoader", text="<lora:evil:1> good.safetensors")
    assert EVIL in paths(k=one)


def test_a_text_that_is_a_name_too_is_found_as_both() -> None:
    """Where it is linked only its tag is read; the node itself may read the whole."""
    text = "<lora:ink:1> clay.safetensors"
    graph = {
        "1": {"class_type": "PrimitiveString", "inputs": {"value": text}},
        "2": {"class_type": "Lora Text", "inputs": {"text": ["1", 0]}},
    }
    paths = found("comfyui", post("/prompt", {"prompt": graph}))
    assert "/loras/ink.safetensors" in paths
    assert f"/loras/{text}" in paths


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("<lora:>a <lora:ink:1>", ["ink"]),
        ("<lora:ink:1> and <lyco:clay:1>", ["ink", "clay"]),
        ("<lora:ink:1> <lora:clay", ["ink"]),
        ("a harbour", []),
    ],
)
def test_coziness_hands_on_the_tags_of_a_text_and_the_rest(text: str, tags: list[str]) -> None:
    extractor_node = {"class_type": "LoraTextExtractor-b1f83aa2", "inputs": {"text": text}}
    for slot, names in ((1, tags), (0, [])):
        reader = {"class_type": "MultiLoraLoader-70bf3d77", "inputs": {"text": ["1", slot]}}
        links = Links(nodes_of({"1": extractor_node, "2": reader}, ("prompt",)))
        handed = links.text(["1", slot])
        assert handed is not None
        assert [one.name for one in tags_in(handed, "x") if one.name] == names
