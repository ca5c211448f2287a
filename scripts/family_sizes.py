"""The table of docs/your-own-model.md: what each family takes. `python -m scripts.family_sizes`.

Counted on models without weights, made of the configurations that the families are published with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
)
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from loragate_server.trials.layers import ATTENTION
from loragate_server.trials.lessons import things_taught
from loragate_server.trials.recipe import PLANS
from loragate_server.trials.subjects import DRAWN

RANK = 16
TRAINED, LEARNED = 150, 40
HALF, WHOLE = 2, 4
"""Bytes of a number."""

GB = 1e9


@dataclass(frozen=True)
class Size:
    """What a family takes. Bytes are those of weights in half precision."""

    family: str
    denoiser: int
    every: int
    adapter: int

    @property
    def weights_gb(self) -> float:
        """Denoiser, text encoders and VAE."""
        return self.every * HALF / GB

    @property
    def training_gb(self) -> float:
        """Weights, and each number of an adapter with its gradient and AdamW's two moments."""
        return self.weights_gb + self.adapter * 4 * WHOLE / GB

    @property
    def adapters_gb(self) -> float:
        """On disk, all of a calibration."""
        return self.adapter * HALF * (TRAINED + LEARNED) / GB

    @property
    def steps(self) -> int:
        """Of all trainings of a calibration."""
        return PLANS[self.family].steps * (TRAINED + LEARNED)


def _clip(width: int, layers: int, heads: int) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
        )
    )


def _t5() -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(
            d_model=4096,
            d_ff=10240,
            num_layers=24,
            num_heads=64,
            feed_forward_proj="gated-gelu",
        )
    )


def _vae(channels: int) -> AutoencoderKL:
    blocks = 4
    return AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        layers_per_block=2,
        latent_channels=channels,
    )


def _sd() -> UNet2DConditionModel:
    return UNet2DConditionModel(cross_attention_dim=768)


def _sdxl() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        block_out_channels=(320, 640, 1280),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=(5, 10, 20),
        cross_attention_dim=2048,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )


def _sd3() -> SD3Transformer2DModel:
    return SD3Transformer2DModel(
        num_layers=24,
        num_attention_heads=24,
        caption_projection_dim=1536,
        pos_embed_max_size=192,
        out_channels=16,
    )


CLIP_L, CLIP_G = (768, 12, 12), (1280, 32, 20)
_PARTS: dict[str, tuple[Callable[[], Any], ...]] = {
    "sd": (_sd, lambda: _clip(*CLIP_L), lambda: _vae(4)),
    "sdxl": (_sdxl, lambda: _clip(*CLIP_L), lambda: _clip(*CLIP_G), lambda: _vae(4)),
    "sd3": (_sd3, lambda: _clip(*CLIP_L), lambda: _clip(*CLIP_G), _t5, lambda: _vae(16)),
    "flux": (
        lambda: FluxTransformer2DModel(guidance_embeds=True),
        lambda: _clip(*CLIP_L),
        _t5,
        lambda: _vae(16),
    ),
}
NAMES = {
    "sd": "`sd` (Stable Diffusion 1.5)",
    "sdxl": "`sdxl`",
    "sd3": "`sd3` (medium)",
    "flux": "`flux` (dev)",
}


def sizes() -> list[Size]:
    """Every family."""
    found = []
    for family, parts in _PARTS.items():
        with torch.device("meta"):
            denoiser, *others = [part() for part in parts]
        counts = [_count(each) for each in (denoiser, *others)]
        found.append(Size(family, counts[0], sum(counts), _adapter(denoiser)))
    return found


def _count(model: nn.Module) -> int:
    return sum(each.numel() for each in model.parameters())


def _adapter(denoiser: nn.Module) -> int:
    """Numbers of an adapter of rank RANK on the layers that trainings here change."""
    return sum(
        RANK * (module.in_features + module.out_features)
        for name, module in denoiser.named_modules()
        if isinstance(module, nn.Linear) and name.endswith(tuple(f".{one}" for one in ATTENTION))
    )


def table() -> str:
    """The table as the page has it."""
    lines = [
        "| family | parameters | weights, half precision | training, at least |"
        " one adapter, rank 16 | 190 adapters | pictures to draw | steps to train |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {NAMES[size.family]} | {size.every / GB:.1f} billion | {size.weights_gb:.1f} GB |"
        f" {size.training_gb:.1f} GB | {size.adapter * HALF / 1e6:.0f} MB |"
        f" {size.adapters_gb:.1f} GB | {DRAWN * things_taught(TRAINED)} | {size.steps} |"
        for size in sizes()
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
