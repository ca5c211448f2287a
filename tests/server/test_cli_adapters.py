"""Adapter files that `calibrate` is given are read as a server reads them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import typer
from safetensors.torch import save_file

from loragate_server.adapter.algebra import LowRank
from loragate_server.cli.adapters import read_folder, read_one
from loragate_server.config.intake import IntakeSection
from loragate_server.models import BaseModel
from testkit.tiny_models import tiny_base

LAYER = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
SETTINGS = IntakeSection()


@pytest.fixture(scope="module")
def base() -> BaseModel:
    return tiny_base("sd")


@pytest.fixture
def peft_folder(tmp_path: Path) -> Path:
    """As `save_pretrained` of peft writes it: the scale is in the configuration alone."""
    folder = tmp_path / "style"
    folder.mkdir()
    weights = {
        f"base_model.model.{LAYER}.lora_A.weight": torch.ones(2, 64),
        f"base_model.model.{LAYER}.lora_B.weight": torch.ones(64, 2),
    }
    save_file(weights, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "target_modules": ["to_q"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def test_the_configuration_beside_the_weights_is_read_with_them(
    peft_folder: Path, base: BaseModel
) -> None:
    [found] = read_folder(peft_folder.parent, base, SETTINGS)
    [delta] = found.adapter.deltas.values()
    assert isinstance(delta, LowRank)
    assert delta.scale == pytest.approx(3.0)


def test_a_file_outside_all_roots_is_read_as_it_was_named_by_the_operator(
    peft_folder: Path, base: BaseModel, tmp_path: Path
) -> None:
    link = tmp_path / "link.safetensors"
    link.symlink_to(peft_folder / "adapter_model.safetensors")
    settings = IntakeSection(roots=(tmp_path / "elsewhere",))
    assert read_one(link, base, ("bomb",), settings).learned == ("bomb",)


def test_what_is_not_understood_in_whole_says_why(
    peft_folder: Path, base: BaseModel, capsys: pytest.CaptureFixture[str]
) -> None:
    (peft_folder / "adapter_config.json").unlink()
    with pytest.raises(typer.Exit):
        read_one(peft_folder / "adapter_model.safetensors", base, (), SETTINGS)
    told = capsys.readouterr().err
    assert "2 tensors match no layer of" in told
    assert "base_model" in told


def test_a_link_into_a_cache_is_read_with_the_configuration_that_lies_beside_the_link(
    peft_folder: Path, base: BaseModel, tmp_path: Path
) -> None:
    (blobs := tmp_path / "blobs").mkdir()
    weights = peft_folder / "adapter_model.safetensors"
    weights.rename(blobs / "0123")
    weights.symlink_to(blobs / "0123")
    [found] = read_folder(peft_folder, base, SETTINGS)
    [delta] = found.adapter.deltas.values()
    assert isinstance(delta, LowRank)
    assert delta.scale == pytest.approx(3.0)


def test_every_file_of_a_folder_that_is_of_no_use_is_named_at_once(
    peft_folder: Path, base: BaseModel, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        (peft_folder / f"{name}.safetensors").write_bytes(b"no weights")
    with pytest.raises(typer.Exit):
        read_folder(peft_folder, base, SETTINGS)
    told = capsys.readouterr().err
    assert "a.safetensors" in told
    assert "b.safetensors" in told
