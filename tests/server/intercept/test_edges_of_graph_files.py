"""Edges of which files ComfyUI means, and which are no LoRAs, where a change was unnoticed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.server.intercept.test_comfyui_flow import node
from tests.server.intercept.test_comfyui_links import loaded, paths, refused

FILE = "/loras/x.safetensors"
BASE = node("CheckpointLoaderSimple", ckpt_name="b.safetensors")


@pytest.mark.parametrize(
    ("link", "may_be_one"),
    [
        (["4", 0], True),  # the model of a checkpoint
        (["4", 1], True),  # its text encoder
        (["4", 2], False),  # its VAE
        (["5", 0], False),  # of a node that loads no base
        (["0", 0], False),  # of a node that is not there
    ],
)
def test_what_takes_the_model_of_a_checkpoint_may_apply_a_lora_to_it(
    link: list[Any], may_be_one: bool
) -> None:
    taker = node("MyUpscaler", model_name="x.safetensors", thing=link, other="model")
    graph = {"1": taker, "4": BASE, "5": node("LoadImage", image="a.png")}
    assert paths(**graph) == ([FILE] if may_be_one else [])


@pytest.mark.parametrize("name", ["vae", "model", "upscale_model", "controlnet"])
def test_a_model_that_goes_in_as_what_it_is_is_applied_to_no_other(name: str) -> None:
    taker = node("Other", **{name: ["1", 0], "base_model": ["4", 0]})
    graph = {"1": node("MyUpscaler", file_name="x.safetensors"), "2": taker, "4": BASE}
    assert paths(**graph) == []


@pytest.mark.parametrize(
    ("kind", "inputs"),
    [
        ("UpscaleModelLoader", {"model_name": "loras/x.safetensors"}),
        ("UpscaleModelLoader", {"model_name": "lycoris\\x.safetensors"}),
        ("UpscaleModelLoader", {"model_name": "https://files.example.org/x.safetensors"}),
        ("Lora Upscaler", {"model_name": "x.safetensors"}),
        ("MyUpscaler", {"lora_file": "x.safetensors"}),
        ("Lora Fetcher", {"where": "https://files.example.org/x"}),
    ],
)
def test_what_lies_among_loras_or_comes_from_elsewhere_is_no_other_model(
    kind: str, inputs: dict[str, str]
) -> None:
    assert len(loaded(a=node(kind, **inputs))) == 1


def test_an_air_is_no_other_model_and_cannot_be_fetched() -> None:
    told = refused(a=node("UpscaleModelLoader", model_name="urn:air:sd1:lora:civitai:1@2"))
    assert "Civitai" in told


@pytest.mark.parametrize(("output", "link"), [(2**31 - 1, True), (2**31, False), (-(2**31), False)])
def test_what_counts_further_than_outputs_do_is_no_link(output: int, link: bool) -> None:
    graph = {"a": node("LoraLoader", lora_name=["x", output])}
    if link:
        assert "is linked to a node" in refused(**graph)
    else:
        assert paths(**graph) == [FILE]


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
