"""Trains the text encoder and the UNet together on the pictures of the training split."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import PreTrainedTokenizerFast

from emoji_tiny.progress import Checkpoint, track
from emoji_tiny.render import caption, pool
from emoji_tiny.text import MAX_TOKENS, WIDTH, new_text_encoder, new_tokenizer

LEARNING_RATE = 1.2e-3
EMA_DECAY = 0.998


def new_unet() -> UNet2DConditionModel:
    """An untrained UNet: 48 and 96 channels, cross-attention at 8x8, in the middle and going up."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=(48, 96),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=2,  # diffusers reads this as the number of heads
        norm_num_groups=16,
    )


def new_scheduler() -> DDPMScheduler:
    """The noise schedule of Stable Diffusion 1.x."""
    return DDPMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        prediction_type="epsilon",
        steps_offset=1,
    )


def encode(vae: AutoencoderKL, pictures: torch.Tensor) -> torch.Tensor:
    """uint8 [n, 3, 64, 64] to scaled latents float32 [n, 4, 16, 16]."""
    parts = []
    with torch.no_grad():
        for chunk in pictures.split(64):
            posterior = vae.encode(chunk.float().div(127.5).sub(1)).latent_dist
            parts.append(posterior.mean * vae.config.scaling_factor)
    return torch.cat(parts)


class TextToNoise(torch.nn.Module):
    """Text encoder and UNet as one module, so that one optimizer and one average cover both."""

    def __init__(self, vocabulary_size: int) -> None:
        super().__init__()
        self.text_encoder = new_text_encoder(vocabulary_size)
        self.unet = new_unet()

    def forward(
        self, noisy: torch.Tensor, timesteps: torch.Tensor, tokens: torch.Tensor
    ) -> torch.Tensor:
        """Predicted noise [n, 4, 16, 16]."""
        states = self.text_encoder(tokens).last_hidden_state
        prediction: torch.Tensor = self.unet(noisy, timesteps, states).sample
        return prediction


@dataclass(frozen=True)
class Phase:
    """One stretch of the training: which emoji, how long, and the state file it resumes from."""

    name: str
    chars: tuple[str, ...]
    steps: int
    copies: int


def train_unet(out: Path, phases: Sequence[Phase], *, batch: int, seed: int) -> None:
    """Trains on top of `out/vae`, phase after phase; saves averaged weights."""
    tokenizer = new_tokenizer()
    model = TextToNoise(len(tokenizer))
    for phase in phases:
        model = _train_phase(out, phase, model, tokenizer, batch, seed)
    model.unet.save_pretrained(out / "unet")
    model.text_encoder.save_pretrained(out / "text_encoder")
    tokenizer.save_pretrained(out / "tokenizer")
    new_scheduler().save_pretrained(out / "scheduler")


def _train_phase(
    out: Path,
    phase: Phase,
    model: TextToNoise,
    tokenizer: PreTrainedTokenizerFast,
    batch: int,
    seed: int,
) -> TextToNoise:
    """Trains `model` and returns its running average."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    steps = phase.steps
    vae = AutoencoderKL.from_pretrained(out / "vae").eval()
    pictures, chars, backgrounds = pool(phase.chars, phase.copies, seed)
    latents = encode(vae, pictures)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY))
    scheduler = new_scheduler()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=steps + 1, pct_start=0.05
    )
    checkpoint = Checkpoint(
        out / f"{phase.name}.pt",
        torch.nn.ModuleDict({"model": model, "average": average}),
        optimizer,
        schedule,
    )
    start = checkpoint.load()
    began, losses = time.monotonic(), []
    for step in track(range(start, steps), total=steps, start=start, label=phase.name):
        index = torch.randint(len(latents), (batch,)).tolist()
        captions = [caption(chars[i], backgrounds[i], rng) for i in index]
        tokens = tokenizer(
            captions,
            padding="max_length",
            max_length=MAX_TOKENS,
            truncation=True,
            return_tensors="pt",
        ).input_ids
        clean = latents[index]
        noise = torch.randn_like(clean)
        timesteps = torch.randint(0, 1000, (batch,))
        prediction = model(scheduler.add_noise(clean, noise, timesteps), timesteps, tokens)
        loss = functional.mse_loss(prediction, noise)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        average.update_parameters(model)
        losses.append(loss.item())
        if (step + 1) % 250 == 0 or step + 1 == steps:
            checkpoint.save(step + 1)
            mean = sum(losses) / len(losses)
            losses.clear()
            print(
                f"{phase.name} step {step + 1} loss {mean:.4f} {time.monotonic() - began:.0f} s",
                flush=True,
            )
    trained = average.module
    assert isinstance(trained, TextToNoise)  # noqa: S101
    return trained
