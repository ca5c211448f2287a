"""Files that are sent as embeddings: one new word for the base model's own text encoders."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from loragate_server.adapter.adapter import Adapter
from loragate_server.adapter.reference import StoredFile
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.intake.reader import read_adapter
from testkit.tiny_models import TOKENS, WIDTH, shared_base

MOST_ROWS = TOKENS - 5


def rows(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def kept(tensors: dict[str, Tensor], folder: Path) -> StoredFile:
    path = folder / "word.safetensors"
    save_file(tensors, path)
    return StoredFile("e" * 64, path.stat().st_size, path)


def read(tensors: dict[str, Tensor], folder: Path, family: str = "sd", *loaders: str) -> Adapter:
    options = {"loaders": loaders} if loaders else {}
    made = read_adapter(kept(tensors, folder), shared_base(family), kind="embedding", **options)
    assert not made.doubts
    [adapter] = made.adapters
    return adapter


@pytest.mark.parametrize(
    ("name", "shape", "named"),
    [
        ("emb_params", (2, WIDTH), "embedding of A1111"),
        ("<learned>", (WIDTH,), "embedding of diffusers"),
        ("my block style", (MOST_ROWS, WIDTH), "embedding of diffusers"),
    ],
)
def test_the_rows_of_one_word_are_read_as_they_are(
    name: str, shape: tuple[int, ...], named: str, tmp_path: Path
) -> None:
    given = rows(*shape)
    adapter = read({name: given}, tmp_path)
    assert adapter.kind == "embedding"
    assert adapter.format == named
    assert not adapter.deltas
    assert torch.equal(adapter.words["text_encoder"], given.reshape(-1, WIDTH))
    assert adapter.coverage.complete
    assert adapter.loaders == ("diffusers", "comfyui", "a1111")


def test_half_precision_is_read_as_float32(tmp_path: Path) -> None:
    given = rows(2, WIDTH).half()
    found = read({"emb_params": given}, tmp_path).words["text_encoder"]
    assert found.dtype is torch.float32
    assert torch.equal(found, given.float())


def test_sdxl_gets_rows_for_both_text_encoders(tmp_path: Path) -> None:
    given = {"clip_l": rows(2, WIDTH), "clip_g": -rows(2, WIDTH)}
    adapter = read(given, tmp_path, "sdxl", "comfyui", "sglang")
    assert adapter.format == "embedding of SDXL"
    assert adapter.loaders == ("comfyui",)
    assert torch.equal(adapter.words["text_encoder"], given["clip_l"])
    assert torch.equal(adapter.words["text_encoder_2"], given["clip_g"])


LORA = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight"


@pytest.mark.parametrize(
    ("family", "tensors", "said"),
    [
        ("sd", {LORA: rows(2, WIDTH), LORA.replace("_A", "_B"): rows(WIDTH, 2)}, "is none"),
        ("sd", {LORA: rows(2, WIDTH)}, "is none"),
        ("sd", {LORA: rows(2, 4), "bundle_emb.w.clip_l": rows(2, WIDTH)}, "is none"),
        ("sd", {"<one>": rows(1, WIDTH), "<two>": rows(1, WIDTH)}, "2 tensors"),
        ("sd", {"clip_l": rows(1, WIDTH), "clip_g": rows(1, WIDTH)}, "has one tensor"),
        ("sd", {"emb_params": rows(1, WIDTH + 1)}, f"rows of {WIDTH} numbers"),
        ("sd", {"emb_params": rows(1, 1, WIDTH)}, f"rows of {WIDTH} numbers"),
        ("sd", {"emb_params": torch.zeros(0, WIDTH)}, f"rows of {WIDTH} numbers"),
        ("sd", {"emb_params": torch.ones(1, WIDTH, dtype=torch.int32)}, "torch.int32"),
        ("sd", {"emb_params": rows(MOST_ROWS + 1, WIDTH)}, f"has room for {MOST_ROWS}"),
        ("sdxl", {"emb_params": rows(1, WIDTH)}, "clip_l and clip_g"),
        ("sdxl", {"clip_l": rows(1, WIDTH)}, "clip_l and clip_g"),
        ("sdxl", {"clip_l": rows(1, WIDTH), "clip_g": rows(2, WIDTH)}, "1 and 2 rows"),
        ("sdxl", {"clip_l": rows(1, WIDTH), "clip_g": rows(1, 7)}, "text_encoder_2"),
        ("flux", {"emb_params": rows(1, WIDTH)}, "puts no new words"),
        ("sd3", {"clip_l": rows(1, WIDTH), "clip_g": rows(1, WIDTH)}, "puts no new words"),
    ],
)
def test_what_is_no_embedding_for_the_base_model_is_refused(
    family: str, tensors: dict[str, Tensor], said: str, tmp_path: Path
) -> None:
    with pytest.raises(NoDecisionError) as caught:
        read(tensors, tmp_path, family)
    assert caught.value.reason is ErrorReason.EMBEDDING_INVALID
    assert said in caught.value.message
    assert caught.value.remedy


def test_a_number_that_float32_does_not_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NoDecisionError) as caught:
        read({"emb_params": torch.full((1, WIDTH), 1e300, dtype=torch.float64)}, tmp_path)
    assert caught.value.reason is ErrorReason.WEIGHTS_NOT_FINITE
