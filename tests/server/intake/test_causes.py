"""A file that is not read in full says for which model it was made, and what it holds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from loragate_server.intake.causes import kind_not_read, made_for
from loragate_server.intake.convert import Converted, convert
from loragate_server.models import BaseModel
from testkit.parity_cases import CASES
from testkit.tiny_models import shared_base

pytestmark = pytest.mark.filterwarnings("ignore")  # diffusers' own, on files that are odd

LAYER = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"


def names_of(base: BaseModel) -> list[str]:
    """What diffusers would call a LoRA of every layer of the denoiser."""
    part = base.denoiser_component
    return [f"{part}.{n}.lora_A.weight" for c, n in base.adaptable_modules() if c == part]


def pair(stem: str, width: int = 64) -> dict[str, Tensor]:
    return {
        f"{stem}.lora_A.weight": torch.ones(2, width),
        f"{stem}.lora_B.weight": torch.ones(width, 2),
    }


def read(tensors: dict[str, Tensor], family: str = "sd") -> Converted:
    return convert(tensors, shared_base(family))


@pytest.mark.parametrize("family", list(CASES))
def test_names_of_a_family_are_never_taken_for_another_s(family: str) -> None:
    assert made_for(names_of(shared_base(family)), family) is None


OF_ATTN1 = "another model of such blocks (PixArt, Sana, LTX-Video, CogVideoX)"
ALIKE = "Stable Diffusion 3 or another model of such blocks (Flux, Qwen-Image)"


@pytest.mark.parametrize(
    ("own", "other", "label"),
    [
        ("sd", "sdxl", "Stable Diffusion 1 or 2"),
        ("sdxl", "sd", "SDXL"),
        ("sd3", "sdxl", ALIKE),
        ("flux", "sd3", "Flux"),
        ("flux", "sd", "Flux"),
    ],
)
def test_names_of_a_family_are_known_under_another(own: str, other: str, label: str) -> None:
    found = made_for(names_of(shared_base(own)), other)
    assert found is not None
    assert found[0] == label


@pytest.mark.parametrize("family", list(CASES))
@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("transformer.transformer_blocks.0.attn1.to_q", OF_ATTN1),
        ("transformer.adaln_single.linear", "PixArt or LTX-Video"),
        ("lora_unet_blocks_0_attn1_q_proj", "Hunyuan-DiT"),
        ("lora_unet_blocks_0_attn2_kv_proj", "Hunyuan-DiT"),
        ("transformer.blocks.0.attn1.to_q", "Wan"),
    ],
)
def test_a_family_that_no_server_has_is_told_from_those_of_like_names(
    family: str, name: str, label: str
) -> None:
    found = made_for([f"{name}.lora_A.weight"], family)
    assert found is not None
    assert found[0] == label


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_where_names_are_of_several_families_all_are_told(family: str) -> None:
    found = made_for(["transformer.transformer_blocks.0.attn.to_q.lora_A.weight"], family)
    assert found is not None
    assert found[0] == ALIKE


@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_a_file_for_a_deeper_model_says_so(family: str) -> None:
    found = read(pair("transformer.transformer_blocks.59.attn.to_q"), family)
    told = dict(found.causes)["shape_misfit"]
    assert "transformer_blocks.59.attn.to_q" in told
    assert "deeper" in told


def test_a_file_that_is_read_in_full_has_no_causes() -> None:
    assert read(pair(f"unet.{LAYER}")).causes == ()


def test_the_cause_names_the_tensor_that_tells_it() -> None:
    found = read(pair("transformer.transformer_blocks.0.img_mod.1"))
    (code, told), *_ = found.causes
    assert code == "other_family"
    assert "transformer_blocks.0.img_mod.1" in told
    assert "Qwen-Image" in told


def test_a_name_is_cut_before_it_fills_a_sentence() -> None:
    found = read(pair("transformer.transformer_blocks.0.img_mod." + "x" * 400))
    assert all(len(told) < 300 for _, told in found.causes)


def test_a_layer_of_another_width_says_both_shapes() -> None:
    found = read(pair(f"unet.{LAYER}", width=48))
    assert dict(found.causes)["shape_misfit"].count("(") == 2


def loha(stem: str, width: int) -> dict[str, Tensor]:
    first, second = torch.ones(width, 2), torch.ones(2, width)
    names = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
    return {f"{stem}.{n}": t for n, t in zip(names, (first, second) * 2, strict=True)}


KOHYA = f"lora_unet_{LAYER.replace('.', '_')}"


@pytest.mark.parametrize(
    "tensors",
    [
        loha(KOHYA, 48),
        {f"{KOHYA}.diff": torch.ones(48, 48)},
        {f"{KOHYA}.lokr_w1": torch.ones(2, 2), f"{KOHYA}.lokr_w2": torch.ones(24, 24)},
    ],
    ids=["loha", "diff", "lokr"],
)
def test_a_change_of_another_kind_and_width_says_both_shapes(tensors: dict[str, Tensor]) -> None:
    told = dict(read(tensors).causes)["shape_misfit"]
    assert "(64, 64)" in told
    assert "(48, 48)" in told


def test_a_bias_beside_its_weight_s_change_is_no_bias_alone() -> None:
    beside = {f"{KOHYA}.diff": torch.ones(64, 64), f"{KOHYA}.diff_b": torch.ones(64)}
    assert "unknown_kind" not in dict(read(beside).causes)
    alone = {f"{KOHYA}.diff_b": torch.ones(64)}
    assert "biases alone" in dict(read(alone).causes)["unknown_kind"]


def test_tensors_of_no_known_kind_have_no_kind() -> None:
    assert kind_not_read(["nothing.weight", "lora_unet_x.lora_up.weight"]) is None


def test_names_that_no_loader_reads_leave_no_reading_in_full() -> None:
    found = read(pair(f"unet.base_model.model.{LAYER}"))
    assert not any(reading.coverage.complete for reading in found.readings)
    assert found.refused["diffusers"] == "it takes none of its names for a layer"
    assert "comfyui" in found.unknown


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("lora_te2_encoder_block_0_layer_0_SelfAttention_q.lora_down.weight", "T5"),
        ("lora_te3_encoder_block_3_layer_1_DenseReluDense_wo.lora_down.weight", "T5"),
        ("text_encoder_3.encoder.block.0.layer.0.SelfAttention.q.lora_A.weight", "T5"),
        ("transformer.transformer_blocks.0.attn.norm_q.weight", "norms"),
        ("transformer.transformer_blocks.0.attn.norm_added_k.weight", "norms"),
        ("lora_unet_x.bias_values", "sparse biases"),
        ("lora_unet_x.scale", "scales in the place of alphas"),
        ("base_model.model.x.modules_to_save.weight", "whole layers"),
        ("unet.x.lora_embedding_A", "whole layers"),
    ],
)
def test_kinds_that_some_loaders_apply_have_a_name(name: str, label: str) -> None:
    found = kind_not_read([name])
    assert found is not None
    assert label in found[0]


def test_a_second_text_encoder_tells_no_family_that_has_one() -> None:
    clip = ["text_encoder_2.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight"]
    t5 = ["lora_te2_encoder_block_0_layer_0_SelfAttention_q.lora_down.weight"]
    assert made_for([*clip, *t5], "sd3") is None
    assert made_for(t5, "flux") is None
    for family in ("flux", "sd"):
        found = made_for(clip, family)
        assert found is not None
        assert found[0] == "SDXL"
