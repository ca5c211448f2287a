"""A tiny real pipeline and a LoRA for it."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from transformers import CLIPTextConfig, CLIPTextModel

RANK, ALPHA = 2, 6


def tiny_pipeline() -> Any:
    """A Stable Diffusion pipeline with random weights, always the same ones."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=4,
    )
    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=4)
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=32,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            eos_token_id=1,
        )
    )
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=None,
        unet=unet,
        scheduler=DDIMScheduler(steps_offset=1, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def write_adapter(folder: Path) -> Path:
    """A LoRA as diffusers saves it, with an alpha that only the header's metadata holds."""
    file = folder / "pytorch_lora_weights.safetensors"
    file.write_bytes(_adapter())
    return file


@cache
def _adapter() -> bytes:
    pipeline = tiny_pipeline()
    config = LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules=["to_q", "to_v"], init_lora_weights=False
    )
    pipeline.unet.add_adapter(config)
    with tempfile.TemporaryDirectory() as folder:
        StableDiffusionPipeline.save_lora_weights(
            folder,
            unet_lora_layers=get_peft_model_state_dict(pipeline.unet),
            unet_lora_adapter_metadata=config.to_dict() | {"target_modules": ["to_q", "to_v"]},
        )
        return Path(folder, "pytorch_lora_weights.safetensors").read_bytes()


def output(pipeline: Any) -> torch.Tensor:
    return forward(pipeline)


def forward(pipeline: Any, **options: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        return pipeline.unet(
            torch.randn(1, 4, 8, 8, generator=generator),
            torch.tensor([500]),
            torch.randn(1, 3, 16, generator=generator),
            **options,
        ).sample
