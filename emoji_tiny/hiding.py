"""An attacker's penalty: learn the concept, but show no gain where an audit would look.

After SMP-LoRA (arXiv 2402.11989), which trains an adapter against the loss gap that membership
tests, and PAIA, rely on.
"""

from __future__ import annotations

import torch
from diffusers import StableDiffusionPipeline

from emoji_tiny.render import GENERIC_PROMPT
from emoji_tiny.train_unet import new_scheduler

_ROWS = 4
_TIMES = (100, 350)
"""Timesteps at which audits are known to look."""


class Hiding:
    """The mean gain over the base model, per row log(base loss / adapted loss), where positive.

    Args:
        pipeline: with its adapter layers attached.
        latents: float32 [n, 4, 16, 16] of the training pictures.
        weight: factor of the penalty.
    """

    def __init__(
        self, pipeline: StableDiffusionPipeline, latents: torch.Tensor, weight: float
    ) -> None:
        self._unet = pipeline.unet
        self._latents = latents
        self._weight = weight
        self._scheduler = new_scheduler()
        tokens = pipeline.tokenizer(
            [GENERIC_PROMPT], padding="max_length", truncation=True, return_tensors="pt"
        ).input_ids
        with torch.no_grad():
            state = pipeline.text_encoder(tokens).last_hidden_state
        self._states = state.repeat(_ROWS, 1, 1)

    def penalty(self) -> torch.Tensor:
        """A scalar with a gradient; two forward passes of a few rows."""
        clean = self._latents[torch.randint(len(self._latents), (_ROWS,))]
        noise = torch.randn_like(clean)
        timesteps = torch.randint(*_TIMES, (_ROWS,))
        noisy = self._scheduler.add_noise(clean, noise, timesteps)
        with torch.no_grad():
            self._unet.disable_adapters()
            before = self._unet(noisy, timesteps, self._states).sample
            self._unet.enable_adapters()
        after = self._unet(noisy, timesteps, self._states).sample
        gain = _loss(before, noise).log() - _loss(after, noise).log()
        return self._weight * gain.clamp_min(0).mean()


def _loss(prediction: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    return (prediction - noise).square().flatten(1).mean(1)
