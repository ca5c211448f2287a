"""Layouts that people's files have, by family: further cases of `benchmarks.parity`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from peft import LoHaConfig, LoKrConfig
from torch import Tensor

from loragate_server.models import BaseModel
from testkit import adapter_files as files
from testkit import parity_layouts as made
from testkit.adapter_files import Case
from testkit.parity_layouts import ATTENTION, Layout, Named, in_type, originals, prefixed

Maker = Callable[[Path], Case]

_FLAT_CONVOLUTIONS = (*ATTENTION, "proj_in", "proj_out")
_E4M3, _E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
_CONVOLUTIONS = ("conv1", "conv2", "conv_shortcut", "downsamplers.0.conv")


def _loha(targets: str) -> Callable[[], LoHaConfig]:
    return lambda: LoHaConfig(r=4, alpha=6, target_modules=targets)


def _lokr(targets: str) -> Callable[[], LoKrConfig]:
    return lambda: LoKrConfig(r=2, alpha=3, target_modules=targets)


def _two_dimensions(tensor: Tensor) -> Tensor:
    return tensor.flatten(1) if tensor[0, 0].numel() == 1 else tensor


def _four_dimensions(tensor: Tensor) -> Tensor:
    return tensor if tensor.dim() == 4 else tensor[..., None, None]


def _qkv_alone(base: BaseModel) -> Named:
    """Of a single block of Flux, the rows of q, k and v without those of the MLP beside them."""
    for number in range(base.denoiser.config.num_single_layers):
        block = f"single_transformer_blocks.{number}.attn"
        name = f"diffusion_model.single_blocks.{number}.linear1_qkv"
        yield name, tuple(f"{block}.to_{letter}" for letter in "qkv")


def _of_another_make(base: BaseModel) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Flux as later models of its kind have their layers, one for all four of a single block."""
    for number in range(base.denoiser.config.num_single_layers):
        block = f"single_transformer_blocks.{number}"
        fused = (*(f"{block}.attn.to_{letter}" for letter in "qkv"), f"{block}.proj_mlp")
        yield f"transformer.{block}.attn.to_qkv_mlp_proj", fused
        yield f"transformer.{block}.attn.to_out", (f"{block}.proj_out",)


def _of_unet(family: str) -> dict[str, Maker]:
    kohya = Layout(family, prefixed("lora_unet_"), loader="diffusers")
    return {
        "LyCORIS names, LoRA": Layout(family, prefixed("lycoris_")),
        "LyCORIS names, LoHa": made.lycoris(family, _loha(files.UNET_CONV)),
        "LyCORIS names, LoKr": made.lycoris(family, _lokr(files.UNET_CONV)),
        "processor names, lora_A": Layout(family, made.processors("unet."), "A", alpha=False),
        "processor names, no prefix": Layout(family, made.processors(""), "A", alpha=False),
        "processor names, .default": Layout(
            family, made.processors("unet."), "default", alpha=False
        ),
        "original names, lora_A": Layout(
            family, originals("diffusion_model.", dotted=True), "A", alpha=False
        ),
        "original names, alphas": Layout(family, originals("diffusion_model.", dotted=True)),
        "kohya, original names, all": Layout(family, originals("lora_unet_")),
        "kohya, linear layers as 1x1": Layout(
            family, prefixed("lora_unet_"), reshape=_four_dimensions
        ),
        "kohya, bfloat16": in_type(family, kohya, torch.bfloat16),
        "kohya, float16": in_type(family, kohya, torch.float16),
        "kohya, float8_e4m3fn": in_type(family, kohya, _E4M3),
        "kohya, float8_e5m2": in_type(family, kohya, _E5M2),
        "full": made.whole(family, prefixed("lora_unet_")),
        "full, with biases": made.whole(
            family, prefixed("lora_unet_", "to_out.0", "proj_in", "conv1"), bias=True
        ),
        "full, convolutions, A1111": made.whole(
            family, prefixed("lora_unet_", *_CONVOLUTIONS), bias=True, loader="a1111"
        ),
        "full, original names": made.whole(
            family, originals("diffusion_model.", dotted=True), bias=True
        ),
        "full, LyCORIS names": made.whole(family, prefixed("lycoris_")),
    }


def _of_transformer(family: str) -> dict[str, Maker]:
    dotted = Layout(
        family, prefixed("transformer.", dotted=True), "A", alpha=False, loader="diffusers"
    )
    return {
        "LyCORIS names, LoRA": Layout(family, prefixed("lycoris_")),
        "LyCORIS names, LoHa": made.lycoris(family, _loha(files.TRANSFORMER)),
        "LyCORIS names, LoKr": made.lycoris(family, _lokr(files.TRANSFORMER)),
        "OneTrainer": Layout(family, prefixed("lora_transformer_")),
        "diffusers, .default": Layout(
            family, prefixed("transformer.", dotted=True), "default", alpha=False
        ),
        "diffusers, bare lora_A": Layout(
            family, prefixed("transformer.", dotted=True), "bare", alpha=False
        ),
        "kohya, original names": Layout(family, originals("lora_unet_")),
        "original names, lora_A": Layout(
            family, originals("diffusion_model.", dotted=True), "A", alpha=False
        ),
        "original names, alphas": Layout(family, originals("diffusion_model.", dotted=True)),
        "diffusers, bfloat16": in_type(family, dotted, torch.bfloat16),
        "diffusers, float8_e4m3fn": in_type(family, dotted, _E4M3),
        "diffusers, float8_e5m2": in_type(family, dotted, _E5M2),
        "full, original names": made.whole(family, originals("lora_unet_"), bias=True),
        "full, original names, dotted": made.whole(
            family, originals("diffusion_model.", dotted=True)
        ),
        "full, LyCORIS names": made.whole(family, prefixed("lycoris_")),
    }


LAYOUTS: dict[str, dict[str, Maker]] = {
    "sd": _of_unet("sd")
    | {
        "kohya, 1x1 as linear layers": Layout(
            "sd", prefixed("lora_unet_", *_FLAT_CONVOLUTIONS), reshape=_two_dimensions
        ),
    },
    "sdxl": _of_unet("sdxl") | {"kohya, text projection": made.with_projection},
    "sd3": _of_transformer("sd3")
    | {
        "peft's names, no configuration": Layout(
            "sd3", prefixed("base_model.model.", dotted=True), "A", alpha=False
        ),
    },
    "flux": _of_transformer("flux")
    | {
        "diffusers, no prefix": Layout("flux", prefixed("", dotted=True), "A", alpha=False),
        "original names, q, k and v alone": Layout("flux", _qkv_alone, "A", alpha=False),
        "layers of another make": Layout("flux", _of_another_make, "A", alpha=False),
        "OneTrainer, diffusers": Layout("flux", prefixed("lora_transformer_"), loader="diffusers"),
    },
}
"""By family, what is written and how it is told again."""
