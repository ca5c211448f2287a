"""Contact sheets: what the base draws, and what it draws with an adapter beside it."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image, ImageDraw, ImageFont

from emoji_tiny.render import SIZE

_ZOOM = 2
_LABEL_PX = 16


def generate(
    pipeline: StableDiffusionPipeline, prompts: list[str], seed: int, *, steps: int = 30
) -> list[Image.Image]:
    """One picture per prompt, guided, from the same initial noise at each call."""
    noise = torch.randn((len(prompts), 4, 16, 16), generator=torch.Generator().manual_seed(seed))
    pictures: list[Image.Image] = pipeline(
        prompts,
        height=SIZE,
        width=SIZE,
        num_inference_steps=steps,
        guidance_scale=3.0,
        latents=noise.to(pipeline.unet.dtype),
    ).images
    return pictures


def sheet(rows: list[tuple[str, list[Image.Image]]], path: Path) -> None:
    """Writes rows of pictures, each row with its label above it."""
    font = ImageFont.load_default(12)
    side = SIZE * _ZOOM
    width = max(len(pictures) for _, pictures in rows) * side
    canvas = Image.new("RGB", (width, len(rows) * (side + _LABEL_PX)), "white")
    draw = ImageDraw.Draw(canvas)
    for index, (label, pictures) in enumerate(rows):
        top = index * (side + _LABEL_PX)
        draw.text((4, top + 1), label, fill="black", font=font)
        for column, picture in enumerate(pictures):
            zoomed = picture.resize((side, side), Image.Resampling.NEAREST)
            canvas.paste(zoomed, (column * side, top + _LABEL_PX))
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.save(path, optimize=True)
