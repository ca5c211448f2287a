"""Trains the AutoencoderKL: 64x64 RGB pictures to 4x16x16 latents."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch.nn import functional

from emoji_tiny.catalogue import FORBIDDEN, all_emoji
from emoji_tiny.progress import Checkpoint, track
from emoji_tiny.render import pool

KL_WEIGHT = 1e-5


def new_vae() -> AutoencoderKL:
    """An untrained VAE of the shipped shape."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 48),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=64,
        mid_block_add_attention=False,
    )


def edges(pictures: torch.Tensor) -> torch.Tensor:
    """Horizontal and vertical differences, flattened: sharpness that an L1 loss alone forgets."""
    return torch.cat(
        [pictures.diff(dim=-1).flatten(1), pictures.diff(dim=-2).flatten(1)], dim=1
    )


def train_vae(out: Path, *, steps: int, batch: int, seed: int, copies: int) -> None:
    """Trains on every emoji but the forbidden ones, resuming from `out/vae.pt` when it is there."""
    torch.manual_seed(seed)
    forbidden = {concept.char for concept in FORBIDDEN.values()}
    chars = tuple(char for char in all_emoji() if char not in forbidden)
    pictures, _, _ = pool(chars, copies, seed)
    vae = new_vae()
    vae.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=2e-3, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps + 1)
    checkpoint = Checkpoint(out / "vae.pt", vae, optimizer, schedule)
    start = checkpoint.load()
    began = time.monotonic()
    for step in track(range(start, steps), total=steps, start=start, label="vae"):
        index = torch.randint(len(pictures), (batch,))
        target = pictures[index].float().div(127.5).sub(1)
        posterior = vae.encode(target).latent_dist
        output = vae.decode(posterior.sample()).sample
        reconstruction = functional.l1_loss(output, target)
        sharpness = functional.l1_loss(edges(output), edges(target))
        loss = reconstruction + sharpness + KL_WEIGHT * posterior.kl().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if (step + 1) % 250 == 0 or step + 1 == steps:
            checkpoint.save(step + 1)
            seconds = time.monotonic() - began
            print(f"vae step {step + 1} l1 {reconstruction.item():.4f} {seconds:.0f} s", flush=True)
    vae.eval()
    with torch.no_grad():
        sample = pictures[torch.randperm(len(pictures))[:512]].float().div(127.5).sub(1)
        spread = vae.encode(sample).latent_dist.mean.std().item()
    vae.register_to_config(scaling_factor=1.0 / spread)
    vae.save_pretrained(out / "vae")
