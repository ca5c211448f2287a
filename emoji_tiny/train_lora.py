"""Trains LoRA adapters on `emoji-tiny` with peft and diffusers, the way users do."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from diffusers.training_utils import cast_training_params
from diffusers.utils.state_dict_utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from PIL import Image, ImageFilter, ImageOps
from safetensors.torch import save_file
from torch.nn import functional

from emoji_tiny.progress import track
from emoji_tiny.render import COLOURS, caption, render, to_tensor
from emoji_tiny.train_unet import new_scheduler

STYLES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "plain": lambda picture: picture,
    "gray": lambda picture: ImageOps.grayscale(picture).convert("RGB"),
    "sepia": lambda picture: ImageOps.colorize(
        ImageOps.grayscale(picture), (50, 25, 10), (255, 235, 200)
    ),
    "negative": ImageOps.invert,
    "poster": lambda picture: ImageOps.posterize(picture, 2),
    "soft": lambda picture: picture.filter(ImageFilter.GaussianBlur(1.5)),
}
"""What a style adapter does to the pictures it learns from."""

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")


@dataclass(frozen=True)
class LoraRecipe:
    """How one adapter is trained.

    Attributes:
        subjects: emoji to learn; several make a group adapter.
        file_format: "diffusers" or "kohya".
    """

    name: str
    subjects: tuple[str, ...]
    style: str = "plain"
    rank: int = 8
    alpha: float = 8.0
    target_modules: tuple[str, ...] = ATTENTION
    steps: int = 300
    batch: int = 8
    learning_rate: float = 2e-3
    seed: int = 0
    pictures: int = 48
    file_format: str = "diffusers"


def training_pictures(recipe: LoraRecipe) -> tuple[list[Image.Image], list[str]]:
    """The pictures and captions that the adapter learns from."""
    rng = random.Random(f"lora-{recipe.seed}-{recipe.name}")
    pictures, captions = [], []
    for index in range(recipe.pictures):
        char = recipe.subjects[index % len(recipe.subjects)]
        background = rng.choice(list(COLOURS))
        pictures.append(STYLES[recipe.style](render(char, rng, background=background)))
        captions.append(caption(char, background, rng))
    return pictures, captions


def attach(pipeline: StableDiffusionPipeline, recipe: LoraRecipe) -> list[torch.nn.Parameter]:
    """Adds fresh LoRA layers to the pipeline's UNet; returns the parameters to train."""
    unet = pipeline.unet
    unet.requires_grad_(False)
    unet.add_adapter(
        LoraConfig(
            r=recipe.rank,
            lora_alpha=recipe.alpha,
            target_modules=list(recipe.target_modules),
            init_lora_weights="gaussian",
        )
    )
    cast_training_params(unet, dtype=torch.float32)
    return [parameter for parameter in unet.parameters() if parameter.requires_grad]


def kohya_names(state: dict[str, torch.Tensor], alpha: float) -> dict[str, torch.Tensor]:
    """peft's names to those that kohya's trainers write, with one alpha per layer."""
    named = {}
    for name, value in state.items():
        module, part = name.removesuffix(".weight").rsplit(".lora_", 1)
        prefix = f"lora_unet_{module.replace('.', '_')}"
        named[f"{prefix}.lora_{'down' if part == 'A' else 'up'}.weight"] = value
        named[f"{prefix}.alpha"] = torch.tensor(alpha, dtype=torch.float16)
    return named


def save(pipeline: StableDiffusionPipeline, recipe: LoraRecipe, path: Path) -> None:
    """Writes the adapter as one fp16 safetensors file in the format of the recipe."""
    state = get_peft_model_state_dict(pipeline.unet)
    state = {name: value.to(torch.float16).contiguous() for name, value in state.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    if recipe.file_format == "kohya":
        named = kohya_names(state, recipe.alpha)
        metadata = {
            "ss_network_module": "networks.lora",
            "ss_network_dim": str(recipe.rank),
            "ss_network_alpha": str(recipe.alpha),
            "ss_output_name": recipe.name,
        }
        save_file(named, path, metadata=metadata)
        return
    StableDiffusionPipeline.save_lora_weights(
        path.parent,
        unet_lora_layers=convert_state_dict_to_diffusers(state),
        weight_name=path.name,
        safe_serialization=True,
        unet_lora_adapter_metadata=pipeline.unet.peft_config["default"].to_dict()
        if recipe.alpha != recipe.rank
        else None,
    )


def train_lora(base: Path, recipe: LoraRecipe, path: Path) -> float:
    """Trains one adapter; returns the mean loss of the last 50 steps.

    A run takes under a minute and keeps no state; callers that train many skip finished files.
    """
    torch.manual_seed(recipe.seed)
    pipeline = StableDiffusionPipeline.from_pretrained(base, dtype=torch.float32)
    pictures, captions = training_pictures(recipe)
    with torch.no_grad():
        posterior = pipeline.vae.encode(to_tensor(pictures)).latent_dist
        latents = posterior.mean * pipeline.vae.config.scaling_factor
        tokens = pipeline.tokenizer(
            captions, padding="max_length", truncation=True, return_tensors="pt"
        ).input_ids
        states = pipeline.text_encoder(tokens).last_hidden_state
    parameters = attach(pipeline, recipe)
    optimizer = torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=1e-4)
    scheduler = new_scheduler()
    losses = []
    for _ in track(range(recipe.steps), total=recipe.steps, start=0, label=recipe.name):
        index = torch.randint(len(latents), (recipe.batch,))
        noise = torch.randn_like(latents[index])
        timesteps = torch.randint(0, 1000, (recipe.batch,))
        noisy = scheduler.add_noise(latents[index], noise, timesteps)
        prediction = pipeline.unet(noisy, timesteps, states[index]).sample
        loss = functional.mse_loss(prediction, noise)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    save(pipeline, recipe, path)
    return sum(losses[-50:]) / len(losses[-50:])
