"""Pictures that the pipeline itself draws, with or without an adapter."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks.audit.alternatives.tools import Adapters, Tools, denoiser_with, text_with
from emoji_tiny.catalogue import name_of
from emoji_tiny.render import SIZE

PICTURES = 20
"""Drawn per adapter and concept."""
STEPS = 20
GUIDANCE = 3.0
SEED = 77


def prompt_of(char: str) -> str:
    """How a user asks for an emoji."""
    return f"a picture of {name_of(char)}"


def draw(tools: Tools, prompts: Sequence[str], seed: int, adapters: Adapters = ()) -> Tensor:
    """One picture per prompt, float32 [n, 3, 64, 64] in [-1, 1]."""
    count = len(prompts)
    noise = torch.randn((count, 4, 16, 16), generator=torch.Generator().manual_seed(seed))
    # guided: the pipeline runs every picture twice, without and with its prompt
    with denoiser_with(tools.base, adapters, 2 * count), text_with(tools.base, adapters):
        shown: Tensor = tools.base.pipeline(
            list(prompts),
            height=SIZE,
            width=SIZE,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            latents=noise,
            output_type="pt",
        ).images
    return shown * 2 - 1


def as_bytes(pictures: Tensor) -> Tensor:
    """[-1, 1] to uint8."""
    return ((pictures + 1) * 127.5).round().to(torch.uint8)
