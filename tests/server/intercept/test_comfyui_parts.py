"""Nodes of ComfyUI that apply a part of a LoRA, or bring one that the request does not name."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.intercept.test_comfyui_flow import node, pairs
from tests.server.intercept.test_comfyui_links import loaded, paths, refused
from tests.server.intercept.verdicts import EVIL

BLOCKS = "gives blocks of the model strengths of their own"
LTX2 = {
    "lora_name": "evil.safetensors",
    "strength_model": 0.5,
    "video": 1.0,
    "video_to_audio": 1.0,
    "audio": 1,
    "audio_to_video": 1.0,
    "other": 1.0,
}
EDIT = {f"blocks.{number}.": number > 3 for number in range(40)}


@pytest.mark.parametrize(
    "graph",
    [
        {"a": node("DiTBlockLoraLoader", lora_name="evil", strength_model=1, blocks=["b", 0])},
        {"a": node("WanVideoLoraSelect", lora="evil.safetensors", strength=1, blocks=["b", 0])},
        {"a": node("HunyuanVideoLoraLoader", lora_name="evil", blocks_type="single_blocks")},
        {"a": node("Made Up Lora", lora_name="evil", blocks={"single_blocks.0.": 1.0})},
        {"a": node("Made Up Lora", lora_name="evil", selected_blocks=["b", 0])},
        {"a": node("Made Up Lora", lora_name="evil", layer_filter="attn")},
        {"a": node("Made Up Lora", lora_name="evil", **{"double_blocks.3.": 1.0})},
        {"a": node("Made Up Lora", lora_name="evil", block_7=0.5)},
        {"a": node("Made Up Lora", lora_name="evil", up_block_1_strength=["b", 0])},
        {"a": node("LTX2LoraLoaderAdvanced", **{**LTX2, "other": 0.0})},
        {"a": node("LTX2LoraLoaderAdvanced", **{**LTX2, "audio": "0.5"})},
        {"a": node("LTX2LoraLoaderAdvanced", **{**LTX2, "video": {"__value__": 0.5}})},
        {
            "a": node("LTX2LoraLoaderAdvanced", **{**LTX2, "video": ["c", 0]}),
            "c": node("PrimitiveFloat", value=0.5),
        },
        {
            "a": node("Apply Lora Stack", lora_stack=["c", 0], blocks=["b", 0]),
            "c": node("Lora Stacker", lora_name_1="evil"),
        },
    ],
)
def test_a_part_of_a_lora_is_no_lora_that_an_audit_takes_in(graph: dict[str, Any]) -> None:
    assert BLOCKS in refused(**graph, b=node("WanVideoLoraBlockEdit", **EDIT))


def test_a_strength_for_some_layers_that_is_made_while_the_graph_runs_is_refused() -> None:
    graph = {"a": node("LTX2LoraLoaderAdvanced", **{**LTX2, "video": ["c", 0]})}
    assert "makes while the graph runs" in refused(**graph, c=node("Any Number"))


@pytest.mark.parametrize(
    "graph",
    [
        {"a": node("WanVideoLoraSelect", lora="evil.safetensors", strength=0.5)},
        {"a": node("WanVideoLoraSelect", lora="evil.safetensors", strength=0.5, blocks=None)},
        {"a": node("HunyuanVideoLoraLoader", lora_name="evil", strength=0.5, blocks_type="all")},
        {"a": node("DiTBlockLoraLoader", lora_name="evil", strength_model=0.5)},
        {"a": node("LTX2LoraLoaderAdvanced", **LTX2)},
        {
            "a": node("LTX2LoraLoaderAdvanced", **{**LTX2, "video": ["c", 0]}),
            "c": node("PrimitiveFloat", value=1.0),
        },
        {"a": node("Made Up Lora", lora_name="evil", strength=0.5, video=["c", 0], block_1=True)},
        # What selects blocks may lie beside it, and other nodes may swap theirs.
        {
            "a": node("WanVideoLoraSelect", lora="evil.safetensors", strength=0.5),
            "b": node("WanVideoLoraBlockEdit", **EDIT),
            "c": node("WanVideoBlockSwap", blocks_to_swap=20),
        },
    ],
)
def test_a_whole_lora_passes_a_node_that_could_part_it(graph: dict[str, Any]) -> None:
    (one,) = loaded(**graph)
    assert one.path == EVIL
    assert {force.denoiser for force in one.strengths} == {0.5}


FACES = (
    ("IPAdapterUnifiedLoaderFaceID", "FACEID", "lora_strength"),
    ("IPAdapterUnifiedLoaderFaceID", "FACEID PLUS V2", "lora_strength"),
    ("easy ipadapterApply", "FACEID PLUS - SD1.5 only", "lora_strength"),
    ("easy ipadapterApplyADV", "FACEID", "lora_model_strength"),
    ("IPAdapterModelHelper //Inspire", "SDXL FaceID Plus v2", "lora_strength_model"),
)
FOUND = "is for a LoRA that comes with the preset, which the server finds by itself."


@pytest.mark.parametrize(("kind", "preset", "strength"), FACES)
def test_a_preset_that_brings_a_lora_is_refused_unless_at_no_strength(
    kind: str, preset: str, strength: str
) -> None:
    def graph(force: Any, chosen: Any = preset) -> dict[str, Any]:
        return {"a": node(kind, preset=chosen, model=["4", 0], **{strength: force})}

    for force in (0.6, -1, "0.6", {"__value__": 1}):
        assert FOUND in refused(**graph(force))
    assert FOUND in refused(**graph(["b", 0]), b=node("PrimitiveFloat", value=1.0))
    assert FOUND in refused(**graph(0.6, ["b", 0]), b=node("PrimitiveString", value=preset))
    assert "makes it while" in refused(**graph(0.6, ["b", 0]), b=node("Any"))
    assert paths(**graph(0)) == paths(**graph(0.0, ["b", 0]), b=node("Any")) == []
    assert paths(**graph(["b", 0]), b=node("PrimitiveFloat", value=0)) == []


@pytest.mark.parametrize(
    "preset",
    [
        "PLUS FACE (portraits)",
        "STANDARD (medium strength)",
        "FACEID PORTRAIT (style transfer)",
        "FACEID PLUS KOLORS",
    ],
)
def test_presets_without_a_lora_pass_at_any_strength(preset: str) -> None:
    assert paths(a=node("easy ipadapterApply", preset=preset, lora_strength=0.6)) == []


def test_an_adapter_for_faces_that_another_node_loads_brings_its_lora_there() -> None:
    graph = {
        "a": node("easy ipadapterApply", preset="FACEID", lora_strength=0),
        "b": node(
            "easy ipadapterApply", preset="REGULAR", lora_strength=0.6, optional_ipadapter=["a", 3]
        ),
    }
    assert FOUND in refused(**graph)
    graph["a"]["inputs"]["preset"] = "PLUS (high strength)"
    assert paths(**graph) == []


def plot(mode: str, **inputs: Any) -> dict[str, Any]:
    common = {"model_strength": 3.0, "clip_strength": 2.0, "batch_path": "d:\\LoRAs"}
    return {
        "a": node(
            "XY Input: LoRA",
            input_mode=mode,
            lora_name_1="evil.safetensors",
            model_str_1=0.5,
            clip_str_1=0.25,
            **{**common, **inputs},
        )
    }


@pytest.mark.parametrize("mode", ["LoRA Names", "LoRA Names+Weights"])
def test_a_plot_of_loras_by_their_names_is_read_and_its_folder_is_not(mode: str) -> None:
    (one,) = loaded(**plot(mode))
    assert one.path == EVIL
    assert {(0.5, 0.25), (3.0, 2.0)} <= pairs(one)


@pytest.mark.parametrize("mode", ["LoRA Batch", ["b", 0]])
def test_a_plot_of_a_folder_of_loras_is_refused(mode: Any) -> None:
    assert refused(**plot(mode))
