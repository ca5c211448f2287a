"""Files that no verdict can speak for, by family of the base model, and what is said of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from loragate_server.intake.loader_rules.names import LOADERS

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Refused:
    """A file that is not vouched for.

    Attributes:
        tensors: makes what it holds.
        code: of the reason that has to be among those given.
        says: what its sentence has to hold.
        loaders: those that may load it.
    """

    tensors: Callable[[], Tensors]
    code: str
    says: str
    loaders: tuple[str, ...] = LOADERS


WIDTH = 32


def pairs(*stems: str, way: str = "lora_A", width: int = WIDTH, alpha: bool = False) -> Tensors:
    """A LoRA of rank 4 under each name, of square layers."""
    generator = torch.Generator().manual_seed(29)
    down, up = {
        "lora_A": ("lora_A.weight", "lora_B.weight"),
        "lora_down": ("lora_down.weight", "lora_up.weight"),
    }[way]
    found: dict[str, Tensor] = {}
    for stem in stems:
        found[f"{stem}.{down}"] = torch.randn(4, width, generator=generator)
        found[f"{stem}.{up}"] = torch.randn(width, 4, generator=generator)
        if alpha:
            found[f"{stem}.alpha"] = torch.tensor(4.0)
    return found


def _made_for(label: str, *stems: str, way: str = "lora_A") -> Refused:
    return Refused(lambda: pairs(*stems, way=way, alpha=way == "lora_down"), "other_family", label)


def _kind(label: str, *names: str, beside: Tensors | None = None) -> Refused:
    def tensors() -> Tensors:
        generator = torch.Generator().manual_seed(31)
        return {n: torch.randn(WIDTH, WIDTH, generator=generator) for n in names} | (beside or {})

    return Refused(tensors, "unknown_kind", label)


_UNET = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
_MIDDLE = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
_SD3_LAYER = "transformer_blocks.0.attn.to_q"
_FLUX_LAYER = "single_transformer_blocks.0.attn.to_q"

_OTHERS: dict[str, Refused] = {
    "Z-Image": _made_for("Z-Image", "diffusion_model.layers.0.attention.to_q"),
    "Z-Image, kohya": _made_for("Z-Image", "lora_unet_layers_0_attention_qkv", way="lora_down"),
    "Qwen-Image": _made_for("Qwen-Image", "transformer.transformer_blocks.0.img_mlp.net.2"),
    "Wan": _made_for("Wan", "diffusion_model.blocks.0.cross_attn.k"),
    "Wan, kohya": _made_for("Wan", "lora_unet_blocks_0_self_attn_q", way="lora_down"),
    "Chroma": _made_for("Chroma", "diffusion_model.distilled_guidance_layer.in_proj"),
    "HiDream": _made_for("HiDream", "transformer.double_stream_blocks.0.block.attn1.to_q"),
    "Flux.2": _made_for("Flux.2", "transformer.double_stream_modulation_img.linear"),
}
"""Of families that no server has; each is refused by every base model."""

REFUSED: dict[str, dict[str, Refused]] = {
    "sd": {
        "of SDXL": _made_for("SDXL", "lora_te2_text_model_encoder_layers_9_mlp_fc1"),
        "of Flux": _made_for("Flux", f"transformer.{_FLUX_LAYER}"),
        "of another width": Refused(
            lambda: pairs(f"unet.{_MIDDLE}", width=48), "shape_misfit", "(48, 48)"
        ),
        "DoRA in kohya's spelling": _kind(
            "DoRA",
            f"{_UNET}.dora_scale",
            beside=pairs(_UNET, way="lora_down", width=64, alpha=True),
        ),
        "OFT": _kind("OFT", f"{_UNET}.oft_blocks"),
        "GLoRA": _kind("GLoRA", *(f"{_UNET}.{end}.weight" for end in ("a1", "a2", "b1", "b2"))),
        "IA3": _kind("IA3", f"{_UNET}.on_input"),
        "changed norms": _kind("norms", "lora_unet_conv_norm_out.w_norm"),
        "bias alone": _kind("biases alone", f"{_UNET}.diff_b"),
        "peft's names, no configuration": Refused(
            lambda: pairs(f"base_model.model.{_MIDDLE}", width=64), "loader_unknown", "base_model"
        ),
    },
    "sdxl": {
        **_OTHERS,
        "of Stable Diffusion 1": _made_for(
            "Stable Diffusion 1", "lora_unet_down_blocks_0_attentions_0_proj_in", way="lora_down"
        ),
        "scaled 8-bit weights": _kind(
            "scales of 8-bit", f"{_UNET}.scale_weight", beside=pairs(_UNET, way="lora_down")
        ),
        "text projection, diffusers": Refused(
            lambda: pairs("text_encoder_2.text_projection"),
            "loader_unknown",
            "ends with an error at the tensors of text_encoder_2",
            ("diffusers",),
        ),
    },
    "sd3": {
        "of Flux": _made_for("Flux", f"transformer.{_FLUX_LAYER}"),
        "original names, A1111": Refused(
            lambda: pairs("lora_unet_joint_blocks_0_x_block_mlp_fc1", way="lora_down"),
            "loader_unknown",
            "cannot use lora_unet_joint_blocks",
            ("a1111",),
        ),
        "original names, diffusers": Refused(
            lambda: pairs("lora_unet_joint_blocks_0_x_block_attn_proj", way="lora_down"),
            "no_loader",
            "none of its names",
            ("diffusers",),
        ),
        "a doubled prefix": Refused(
            lambda: pairs(f"transformer.base_model.model.{_SD3_LAYER}"),
            "no_loader",
            "none of its names",
            ("diffusers",),
        ),
    },
    "flux": {
        "of SDXL": _made_for("SDXL", "lora_te2_text_model_encoder_layers_9_mlp_fc1"),
        "of Qwen-Image": _OTHERS["Qwen-Image"],
        "original names, no prefix": Refused(
            lambda: pairs("double_blocks.0.img_attn.proj"), "loader_unknown", "no name is one"
        ),
        "peft's names, no configuration": Refused(
            lambda: pairs(f"base_model.model.{_FLUX_LAYER}"),
            "no_loader",
            "its conversion fails",
            ("diffusers",),
        ),
        "a control LoRA's norms": _kind("norms", "single_blocks.0.norm.query_norm.scale"),
    },
}
"""By family of the base model and name of the layout."""
