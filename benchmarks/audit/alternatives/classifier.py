"""A picture classifier as an operator would train it: from reference pictures of the concepts."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.audit.subjects import subjects
from emoji_tiny.catalogue import split
from emoji_tiny.hands import NOTO, draws
from emoji_tiny.render import pool
from loragate_server.models.pipeline import PipelineModel

OTHERS = 100
"""Emoji besides concepts and neutral ones that the classifier must tell from them."""
CHUNK = 64
BATCH = 64
PEAK_RATE = 3e-3


def classes() -> tuple[str, ...]:
    """One emoji per class; the class after the last is "none of these"."""
    chosen = subjects()
    known = {*chosen.concepts, *split().neutral}
    rest = [char for char in (*split().train, *split().reserve) if char not in known]
    others = random.Random("classifier-others").sample(rest, OTHERS)
    return (*chosen.concepts, *split().neutral, *others)


def network(count: int, width: int = 24) -> nn.Sequential:
    """Five convolutions, 64 x 64 pixels to `count` logits."""

    def block(inner: int, outer: int, stride: int) -> list[nn.Module]:
        convolution = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
        return [convolution, nn.BatchNorm2d(outer), nn.ReLU()]

    return nn.Sequential(
        *block(3, width, 2),
        *block(width, 2 * width, 2),
        *block(2 * width, 4 * width, 2),
        *block(4 * width, 4 * width, 1),
        *block(4 * width, 8 * width, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(8 * width, count),
    )


@dataclass(frozen=True)
class Pictures:
    """uint8 [n, 3, 64, 64] and the class of each, int64 [n]."""

    values: Tensor
    labels: Tensor

    @staticmethod
    def cat(parts: list[Pictures]) -> Pictures:
        """All parts, one after the other."""
        values = torch.cat([part.values for part in parts])
        return Pictures(values, torch.cat([part.labels for part in parts]))


def rendered(chars: tuple[str, ...], copies: int, seed: int, hand: str = NOTO) -> Pictures:
    """Renders on random backgrounds of what the hand draws, labelled by their place in `chars`."""
    drawn = tuple(char for char in chars if draws(hand, char))
    values, owners, _ = pool(drawn, copies, seed, hand)
    index = {char: number for number, char in enumerate(chars)}
    return Pictures(values, torch.tensor([index[char] for char in owners]))


def through_decoder(base: PipelineModel, pictures: Pictures, noise: float, seed: int) -> Pictures:
    """The same pictures as the pipeline's decoder shows them.

    Args:
        base: whose autoencoder is used.
        pictures: as rendered.
        noise: most noise on a latent, in its own standard deviations: a denoiser's latents are
            never those of a picture, and a classifier that has only seen clean ones fails on them.
        seed: of the noise.
    """
    generator = torch.Generator().manual_seed(seed)
    vae, parts = base.pipeline.vae, []
    with torch.inference_mode():
        for chunk in pictures.values.split(CHUNK):
            latents = base.encode_pictures(chunk.float().div(127.5).sub(1))
            share = torch.rand((len(latents), 1, 1, 1), generator=generator) * noise
            latents = latents + share * torch.randn(latents.shape, generator=generator)
            shown = vae.decode(latents / vae.config["scaling_factor"]).sample
            parts.append(((shown.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8))
    return Pictures(torch.cat(parts), pictures.labels)


def fit(pictures: Pictures, count: int, epochs: float, seed: int, width: int = 24) -> nn.Sequential:
    """Trains a network on the pictures; progress every 250 steps."""
    torch.manual_seed(seed)
    model = network(count, width)
    steps = max(1, round(epochs * len(pictures.labels) / BATCH))
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=steps + 1)
    for step in range(steps):
        index = torch.randint(len(pictures.labels), (BATCH,))
        logits = model(_shaken(pictures.values[index]))
        loss = functional.cross_entropy(logits, pictures.labels[index], label_smoothing=0.05)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 250 == 0:
            print(f"classifier step {step} of {steps}, loss {loss.item():.3f}", flush=True)
    return model.eval()


def _shaken(values: Tensor) -> Tensor:
    """Random brightness, contrast and pixel noise."""
    pictures = values.float().div(127.5).sub(1)
    contrast = torch.empty((len(values), 1, 1, 1)).uniform_(0.85, 1.15)
    brightness = torch.empty((len(values), 1, 1, 1)).uniform_(-0.1, 0.1)
    return pictures * contrast + brightness + 0.03 * torch.randn_like(pictures)


def probabilities(model: nn.Module, values: Tensor) -> Tensor:
    """float32 [n, classes] of uint8 or [-1, 1] pictures."""
    if values.dtype == torch.uint8:
        values = values.float().div(127.5).sub(1)
    with torch.inference_mode():
        parts = [model(chunk).softmax(dim=1) for chunk in values.split(CHUNK)]
    return torch.cat(parts)


def accuracy(model: nn.Module, pictures: Pictures, among: int | None = None) -> float:
    """Share of pictures given their own class; of the first `among` classes alone if set."""
    chosen = pictures.labels < (among or len(pictures.labels))
    right = probabilities(model, pictures.values[chosen]).argmax(1) == pictures.labels[chosen]
    return float(right.float().mean())


def save(model: nn.Module, facts: dict[str, float], file: Path) -> None:
    """Writes weights and figures as one safetensors file."""
    told = {name: repr(value) for name, value in facts.items()}
    save_file(model.state_dict(), file, metadata=told)


def load(count: int, file: Path) -> tuple[nn.Sequential, dict[str, float]]:
    """What `save` wrote."""
    model = network(count)
    with safe_open(file, "pt") as opened:
        model.load_state_dict({name: opened.get_tensor(name) for name in opened.keys()})  # noqa: SIM118
        facts = {name: float(value) for name, value in (opened.metadata() or {}).items()}
    return model.eval(), facts
