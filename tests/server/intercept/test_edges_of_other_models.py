"""Edges of which files of weights in ComfyUI are no LoRAs, each where a change was unnoticed."""

from __future__ import annotations

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
