"""Gaussian probing (arXiv 2604.25119): activations on pure noise, base against adapted."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.audit.alternatives.tools import Adapters, Tools, denoiser_with, text_with
from benchmarks.audit.derive import Subject
from emoji_tiny.render import GENERIC_PROMPT

LATENTS = 16
TIMES = (0.2, 0.5, 0.8)
SEED = 251


class GaussianActivations:
    """Mean change per channel of the middle and the upward blocks, at three timesteps."""

    def __init__(self, tools: Tools) -> None:
        self._base = tools.base
        height, width = (side // tools.base.pipeline.vae_scale_factor for side in (64, 64))
        generator = torch.Generator().manual_seed(SEED)
        noise = torch.randn((LATENTS, 4, height, width), generator=generator)
        self._latents = noise.repeat(len(TIMES), 1, 1, 1)
        self._times = torch.tensor(TIMES).repeat_interleave(LATENTS)
        self._before = self._activations(())

    def features(self, subject: Subject) -> np.ndarray:
        """float64 [timesteps x channels]."""
        change = self._activations(subject.read(self._base)) - self._before
        return change.double().numpy()

    def _activations(self, adapters: Adapters) -> Tensor:
        means: list[Tensor] = []

        def keep(_: nn.Module, __: object, output: Tensor) -> None:
            by_time = output.reshape(len(TIMES), LATENTS, *output.shape[1:])
            means.append(by_time.mean(dim=(1, 3, 4)).flatten())

        unet = self._base.pipeline.unet
        watched = [unet.mid_block, *unet.up_blocks]
        handles = [block.register_forward_hook(keep) for block in watched]
        try:
            with torch.inference_mode():
                with text_with(self._base, adapters):
                    told = self._base.encode_prompts([GENERIC_PROMPT])
                rows = told.rows(torch.zeros(len(self._latents), dtype=torch.long))
                with denoiser_with(self._base, adapters, len(self._latents)):
                    self._base.denoise(self._latents, self._times, rows)
        finally:
            for handle in handles:
                handle.remove()
        return torch.cat(means)
