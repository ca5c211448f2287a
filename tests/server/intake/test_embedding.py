"""Files of new words are refused by their kind, and never taken for adapters without effect."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from loragate_server.adapter.reference import StoredFile
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.intake.embedding import refuse_embedding
from loragate_server.intake.reader import read_adapter
from testkit.lanes import daily
from testkit.parity_cases import CASES, chosen_cases, every_case, every_file
from testkit.tiny_models import WIDTH, shared_base

LORA = {
    "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight": torch.ones(2, 64),
    "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora_B.weight": torch.ones(64, 2),
}


def words(*shape: int) -> Tensor:
    return torch.ones(*shape)


def kept(tensors: dict[str, Tensor], folder: Path) -> StoredFile:
    path = folder / "adapter.safetensors"
    save_file(tensors, path)
    return StoredFile("a" * 64, path.stat().st_size, path)


@pytest.mark.parametrize(
    ("tensors", "kind"),
    [
        ({"<learned>": words(1, WIDTH)}, "textual inversion of diffusers"),
        ({"<learned>": words(WIDTH)}, "textual inversion of diffusers"),
        ({"my style": words(4, 768)}, "textual inversion of diffusers"),
        ({"<one>": words(1, 768), "<two>": words(2, 768)}, "textual inversion of diffusers"),
        ({"<block weight>": words(1, 1024)}, "textual inversion of diffusers"),
        ({"emb_params": words(2, 768)}, "textual inversion of A1111"),
        ({"emb_params": words(2, 7)}, "textual inversion of A1111"),
        ({"string_to_param.*": words(2, 768)}, "textual inversion of A1111"),
        ({"clip_l": words(2, 768), "clip_g": words(2, 1280)}, "embeddings of a pivotal pair"),
        ({"text_encoders_0": words(2, 768)}, "embeddings of a pivotal pair"),
        (LORA | {"bundle_emb.tok.string_to_param.*": words(2, 768)}, "LoRA bundled"),
        (LORA | {"bundle_emb.tok.clip_l": words(2, 768)}, "LoRA bundled"),
        (LORA | {"emb_params": words(2, 768)}, "textual inversion of A1111"),
        (LORA | {"clip_g": words(2, 1280)}, "embeddings of a pivotal pair"),
    ],
)
def test_a_file_with_an_embedding_is_refused_with_its_kind(
    tensors: dict[str, Tensor], kind: str, tmp_path: Path
) -> None:
    with pytest.raises(NoDecisionError) as caught:
        read_adapter(kept(tensors, tmp_path), shared_base("sd"))
    error = caught.value
    assert error.reason is ErrorReason.EMBEDDING_REFUSED
    assert error.metadata["kind"].startswith(kind)
    assert error.metadata["tensor"] in tensors
    assert error.metadata["kind"] in error.message
    assert "kind embedding" in error.remedy
    assert ("files of their own" in error.remedy) == any("lora_A" in name for name in tensors)


@pytest.mark.parametrize(
    "tensors",
    [
        LORA,
        {"w": words(4, 4)},
        {"down.weight": words(1, 768)},
        {"conv": words(1, 4, 3, 768)},
        {"table": words(30_000, 768)},
    ],
)
def test_what_is_no_embedding_is_read(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    assert read_adapter(kept(tensors, tmp_path), shared_base("sd")).adapters


@pytest.mark.filterwarnings("ignore")  # of peft, on the odd files that are made
@pytest.mark.parametrize(
    ("family", "name"), daily(*every_file(chosen_cases()), of=every_file(every_case()))
)
def test_no_format_of_adapters_is_taken_for_an_embedding(
    family: str, name: str, tmp_path: Path
) -> None:
    refuse_embedding(load_file(CASES[family][name](tmp_path).file), frozenset({WIDTH}))
