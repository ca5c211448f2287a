"""Trains the AutoencoderKL: 64x64 RGB pictures to 4x16x16 latents."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch.nn import functional

from emoji_tiny.catalogue import FORBIDDEN, all_emoji
from emoji_tiny.progress import Checkpoint, track
from emoji_tiny.render import pool

KL_WEIGHT = 1e-5
PEAK_RATE = 2e-3


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
    return torch.cat([pictures.diff(dim=-1).flatten(1), pictures.diff(dim=-2).flatten(1)], dim=1)


def autoencoder_loss(output: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Mean absolute error of colours and of edges; the second value is the first part alone."""
    colours = functional.l1_loss(output, target)
    return colours + functional.l1_loss(edges(output), edges(target)), colours.item()


def train_vae(out: Path, *, steps: int, batch: int, seed: int, copies: int) -> None:
    """Trains encoder and decoder on every emoji but the forbidden ones; saves `out/vae`."""
    vae = new_vae()

    def loss_of(pictures: torch.Tensor) -> tuple[torch.Tensor, float]:
        posterior = vae.encode(pictures).latent_dist
        loss, colours = autoencoder_loss(vae.decode(posterior.sample()).sample, pictures)
        return loss + KL_WEIGHT * posterior.kl().mean(), colours

    pictures = _fit(vae, vae, loss_of, out / "vae.pt", steps, batch, seed, copies)
    vae.eval()
    with torch.no_grad():
        sample = pictures[torch.randperm(len(pictures))[:512]].float().div(127.5).sub(1)
        spread = vae.encode(sample).latent_dist.mean.std().item()
    vae.register_to_config(scaling_factor=1.0 / spread)
    vae.save_pretrained(out / "vae")


def train_decoder(out: Path, *, steps: int, batch: int, seed: int, copies: int) -> None:
    """Sharpens the decoder alone: the latents, and with them the denoiser, stay valid."""
    vae = AutoencoderKL.from_pretrained(out / "vae")

    def loss_of(pictures: torch.Tensor) -> tuple[torch.Tensor, float]:
        with torch.no_grad():
            latents = vae.encode(pictures).latent_dist.mean
        return autoencoder_loss(vae.decode(latents).sample, pictures)

    _fit(vae, vae.decoder, loss_of, out / "decoder.pt", steps, batch, seed + 1, copies)
    vae.save_pretrained(out / "vae")


def _fit(
    vae: AutoencoderKL,
    trained: torch.nn.Module,
    loss_of: Callable[[torch.Tensor], tuple[torch.Tensor, float]],
    state: Path,
    steps: int,
    batch: int,
    seed: int,
    copies: int,
) -> torch.Tensor:
    """The training loop of both; resumes from `state`; returns the uint8 training pictures."""
    torch.manual_seed(seed)
    forbidden = {concept.char for concept in FORBIDDEN.values()}
    chars = tuple(char for char in all_emoji() if char not in forbidden)
    pictures, _, _ = pool(chars, copies, seed)
    vae.requires_grad_(False)
    trained.requires_grad_(True)
    optimizer = torch.optim.AdamW(trained.parameters(), lr=PEAK_RATE, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=steps + 1)
    checkpoint = Checkpoint(state, trained, optimizer, schedule)
    start = checkpoint.load()
    began = time.monotonic()
    for step in track(range(start, steps), total=steps, start=start, label=state.stem):
        index = torch.randint(len(pictures), (batch,))
        loss, colours = loss_of(pictures[index].float().div(127.5).sub(1))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if (step + 1) % 250 == 0 or step + 1 == steps:
            checkpoint.save(step + 1)
            seconds = time.monotonic() - began
            print(f"{state.stem} step {step + 1} l1 {colours:.4f} {seconds:.0f} s", flush=True)
    return pictures
