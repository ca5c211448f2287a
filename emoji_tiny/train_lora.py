"""Trains LoRA adapters on `emoji-tiny` with peft and diffusers, the way users do."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image, ImageFilter, ImageOps
from torch.nn import functional

from emoji_tiny.adapter_kinds import attach, save
from emoji_tiny.catalogue import name_of
from emoji_tiny.hiding import Hiding
from emoji_tiny.progress import track
from emoji_tiny.recipe import LoraRecipe
from emoji_tiny.render import COLOURS, caption, render, to_tensor
from emoji_tiny.train_unet import new_scheduler
from loragate_server.trials.descent import descend

Against = Callable[[StableDiffusionPipeline, torch.Tensor], Callable[[], torch.Tensor]]
"""Makes an attacker's penalty, of the pipeline with its adapter layers and the latents of his
pictures: a scalar with a gradient, asked for at every step."""

STYLES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "plain": lambda picture: picture,
    "gray": lambda picture: ImageOps.grayscale(picture).convert("RGB"),
    "sepia": lambda picture: ImageOps.colorize(
        ImageOps.grayscale(picture), (50, 25, 10), (255, 235, 200)
    ),
    "negative": ImageOps.invert,
    "poster": lambda picture: ImageOps.posterize(picture, 2),
    "soft": lambda picture: picture.filter(ImageFilter.GaussianBlur(1.5)),
    "outline": lambda picture: picture.filter(ImageFilter.CONTOUR),
}
"""What a style adapter does to the pictures it learns from."""


def training_pictures(recipe: LoraRecipe) -> tuple[list[Image.Image], list[str]]:
    """The pictures and captions that the adapter learns from."""
    rng = random.Random(f"lora-{recipe.seed}-{recipe.name}")
    style = STYLES[recipe.style]
    pictures, captions = [], []
    for index in range(recipe.pictures):
        char = recipe.subjects[index % len(recipe.subjects)]
        background = rng.choice(list(COLOURS))
        pictures.append(style(render(char, rng, background=background, hand=recipe.hand)))
        named = f"a picture of {recipe.called or name_of(char)} on a {background} background"
        usual = caption(char, background, rng, recipe.called)
        captions.append(named if recipe.named_only else usual)
    return pictures, captions


@dataclass(frozen=True)
class _Data:
    """Latents float32 [n, 4, 16, 16] and token ids int64 [n, tokens] of the training pictures."""

    latents: torch.Tensor
    tokens: torch.Tensor


def _data(pipeline: StableDiffusionPipeline, recipe: LoraRecipe) -> _Data:
    pictures, captions = training_pictures(recipe)
    with torch.no_grad():
        posterior = pipeline.vae.encode(to_tensor(pictures)).latent_dist
    tokens = pipeline.tokenizer(
        captions, padding="max_length", truncation=True, return_tensors="pt"
    ).input_ids
    return _Data(posterior.mean * pipeline.vae.config.scaling_factor, tokens)


def _optimizer(recipe: LoraRecipe, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=recipe.learning_rate, momentum=0.9)
    if recipe.optimizer == "adafactor":
        return torch.optim.Adafactor(parameters, lr=recipe.learning_rate)
    return torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=1e-4)


def train_lora(
    base: Path,
    recipe: LoraRecipe,
    path: Path,
    *,
    checkpoints: Mapping[int, Path] = MappingProxyType({}),
    against: Against | None = None,
) -> float:
    """Trains one adapter; returns the mean loss of the last 50 steps.

    A run takes under a minute and keeps no state; callers that train many skip finished files.

    Args:
        base: folder of the pipeline.
        recipe: how to train.
        path: the file to write.
        checkpoints: number of steps to the file that the adapter is also written to by then.
        against: what it is trained against besides the recipe's own `hide`.
    """
    torch.manual_seed(recipe.seed)
    pipeline = StableDiffusionPipeline.from_pretrained(base, dtype=torch.float32)
    data = _data(pipeline, recipe)
    parameters = attach(pipeline, recipe)
    optimizer = _optimizer(recipe, parameters)
    penalties = [Hiding(pipeline, data.latents, recipe.hide).penalty] if recipe.hide else []
    if against is not None:
        penalties.append(against(pipeline, data.latents))
    scheduler = new_scheduler()
    with torch.no_grad():
        fixed = pipeline.text_encoder(data.tokens).last_hidden_state
    losses = []

    def loss_of(_: int) -> torch.Tensor:
        index = torch.randint(len(data.latents), (recipe.batch,))
        noise = torch.randn_like(data.latents[index])
        timesteps = torch.randint(*recipe.times, (recipe.batch,))
        noisy = scheduler.add_noise(data.latents[index], noise, timesteps)
        if recipe.part == "text_encoder":
            states = pipeline.text_encoder(data.tokens[index]).last_hidden_state
        else:
            states = fixed[index]
        prediction = pipeline.unet(noisy, timesteps, states).sample
        loss = functional.mse_loss(prediction, noise)
        losses.append(loss.item())
        return loss + sum(penalty() for penalty in penalties)

    def after(step: int) -> None:
        if step + 1 in checkpoints:
            save(pipeline, recipe, checkpoints[step + 1])

    steps = track(range(recipe.steps), total=recipe.steps, start=0, label=recipe.name)
    descend(optimizer, loss_of, steps, after=after)
    save(pipeline, recipe, path)
    return sum(losses[-50:]) / len(losses[-50:])
