"""Edges of the texts in a graph of ComfyUI, each where a wrong change was left unnoticed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.server.intercept.test_comfyui_flow import node, pairs
from tests.server.intercept.test_comfyui_links import loaded, paths, refused


@pytest.mark.parametrize(
    ("kind", "name", "filled_in"),
    [
        ("FaceDetailer", "wildcard", True),
        ("FaceDetailer", "note", False),
        ("Wildcard Processor", "text", True),
        ("Wildcard Processor", "note", True),
        ("CLIPTextEncode", "text", False),
    ],
)
def test_a_wildcard_is_refused_where_its_node_fills_it_in(
    kind: str, name: str, filled_in: bool
) -> None:
    graph = {"a": node(kind, **{name: "a __hidden__ lake"})}
    if filled_in:
        assert "holds a wildcard" in refused(**graph)
    else:
        assert paths(**graph) == []


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("DEF(X=a lake) a X", ""),
        ("SEG(a, b)", ""),
        ("a < b", ""),
        ("NODE(CLIPTextEncode)", ""),
        ("DEF(X=lora) <X:ink:1>", "has DEF, SEG or SUB"),
        (r"DEF(X=a) \\x", "has DEF, SEG or SUB"),
        ("DEF(X=DE) NOX", "has DEF, SEG or SUB"),
        ("DEF(NODE", "has DEF, SEG or SUB"),
        ("NODE(LoraLoader)", "makes a node of its own"),
    ],
)
def test_macros_are_refused_beside_what_they_can_make_a_tag_of(text: str, refusal: str) -> None:
    graph = {"a": node("PCLazyTextEncode", text=text)}
    if refusal:
        assert refusal in refused(**graph)
    else:
        assert paths(**graph) == []


def test_rgthree_takes_the_file_of_the_whole_name_before_another_one_of_its_stem(
    tmp_path: Path,
) -> None:
    for name in ("a/ink.ckpt", "b/ink.safetensors"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    row = {"on": True, "lora": "ink.safetensors", "strength": 1}
    graph = {"k": node("Power Lora Loader (rgthree)", lora_1=row)}
    (one,) = loaded({"lora_folder": str(tmp_path)}, **graph)
    assert one.path == f"{tmp_path}/b/ink.safetensors"


@pytest.mark.parametrize(
    ("name", "file"), [("ink", "ink.ckpt"), ("sub/ink", "sub/ink.sft"), ("robot", "sub/robot.ckpt")]
)
def test_a_name_without_suffix_is_a_path_first_and_then_a_stem(
    tmp_path: Path, name: str, file: str
) -> None:
    (tmp_path / "sub").mkdir()
    for one in ("ink.ckpt", "sub/ink.sft", "sub/robot.ckpt"):
        (tmp_path / one).touch()
    found = loaded({"lora_folder": str(tmp_path)}, k=node("LoraLoader", lora_name=name))
    assert [one.path for one in found] == [f"{tmp_path}/{file}"]


@pytest.mark.parametrize(
    ("kind", "tag", "taken"),
    [
        ("PCLazyLoraLoader", "<lora:ink>", {(1.0, 1.0)}),
        ("PCLazyLoraLoader", "<lora:ink:0.5>", {(0.5, 0.5)}),
        ("PCLazyLoraLoader", "<lora:ink:0.5:2>", {(0.5, 2.0)}),
        ("LoraTagLoader", "<lora:ink>", {(1.0, 1.0)}),
        ("LoraTagLoader", "<lora:ink:0:2>", {(0.0, 2.0), (1.0, 1.0)}),
        ("LoraTagLoader", "<lora:ink:0.5:0>", {(0.5, 0.0)}),
        ("Power Prompt (rgthree)", "<lora:ink>", {(1.0, 1.0)}),
        ("Power Prompt (rgthree)", "<lora:ink:0.5:2>", {(0.5, 2.0), (0.5, 0.5)}),
        ("ImpactWildcardEncode", "<lora:ink>", {(1.0, 1.0)}),
        ("ImpactWildcardEncode", "<lora:ink:0.5>", {(0.5, 0.5)}),
        ("ImpactWildcardEncode", "<lora:ink:0.5:2>", {(0.5, 2.0)}),
        # What is not written in digits alone is passed over.
        ("ImpactWildcardEncode", "<lora:ink:+0.5:2>", {(2.0, 2.0)}),
    ],
)
def test_each_pack_reads_the_numbers_of_a_tag_in_its_own_way(
    kind: str, tag: str, taken: set[tuple[float, float]]
) -> None:
    (one,) = loaded(k=node(kind, populated_text=tag) if "Impact" in kind else node(kind, text=tag))
    assert pairs(one) == taken


def test_a_name_with_a_suffix_is_never_completed(tmp_path: Path) -> None:
    (tmp_path / "ink.ckpt.safetensors").touch()
    (one,) = loaded({"lora_folder": str(tmp_path)}, k=node("LoraLoader", lora_name="ink.ckpt"))
    assert one.path == f"{tmp_path}/ink.ckpt"


MANAGER = "Lora Loader (LoraManager)"


@pytest.mark.parametrize(
    ("taker", "looked_up_anew"),
    [
        (node(MANAGER, lora_stack=["k", 0], loras=[]), True),
        (node(MANAGER, model=["4", 0], loras=[]), False),
        (node(MANAGER, lora_stack=None, loras=[]), False),
        (node("CR Apply LoRA Stack", model=["4", 0], lora_stack=["k", 0]), False),
    ],
)
def test_a_stack_is_looked_up_anew_where_lora_manager_takes_one(
    tmp_path: Path, taker: Any, looked_up_anew: bool
) -> None:
    for name in ("a/ink.safetensors", "b/ink.safetensors"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    row = {"switch_1": "On", "lora_name_1": "b/ink.safetensors", "model_weight_1": 1}
    graph = {"k": node("CR LoRA Stack", **row), "m": taker}
    found = {str(one.path)[-17:] for one in loaded({"lora_folder": str(tmp_path)}, **graph)}
    assert found == {"b/ink.safetensors", *["a/ink.safetensors"] * looked_up_anew}
