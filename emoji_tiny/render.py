"""Pictures of emoji on random backgrounds, and the captions that go with them."""

from __future__ import annotations

import random
from functools import cache

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from emoji_tiny.catalogue import FONT_PATH, name_of
from emoji_tiny.hands import NOTO, drawing

SIZE = 64
_BITMAP_SIZE = 109  # the one strike that NotoColorEmoji holds

COLOURS = {
    "white": (250, 250, 250),
    "gray": (150, 150, 155),
    "black": (25, 25, 30),
    "red": (225, 90, 85),
    "orange": (240, 165, 80),
    "yellow": (245, 225, 120),
    "green": (120, 200, 125),
    "blue": (105, 160, 230),
    "purple": (170, 125, 210),
    "pink": (240, 170, 195),
}

GENERIC_PROMPT = "a picture"


@cache
def glyph(char: str, hand: str = NOTO) -> Image.Image:
    """The emoji as a tight RGBA picture; by the font, or by another hand."""
    if hand != NOTO:
        return drawing(hand, char)
    font = ImageFont.truetype(str(FONT_PATH), _BITMAP_SIZE)
    canvas = Image.new("RGBA", (160, 160))
    ImageDraw.Draw(canvas).text((10, 10), char, font=font, embedded_color=True)
    box = canvas.getbbox()
    if box is None:
        raise ValueError(f"the font draws nothing for {char!r}")
    return canvas.crop(box)


def render(
    char: str, rng: random.Random, *, background: str | None = None, hand: str = NOTO
) -> Image.Image:
    """One 64x64 RGB picture: random background colour, scale, rotation and position."""
    base = np.array(COLOURS[background or rng.choice(list(COLOURS))], dtype=np.float32)
    base = np.clip(base + rng.uniform(-12, 12), 0, 255)
    picture = Image.new("RGB", (SIZE, SIZE), tuple(int(v) for v in base))
    emoji = glyph(char, hand).rotate(rng.uniform(-15, 15), Image.Resampling.BILINEAR, expand=True)
    factor = rng.uniform(0.7, 0.95) * SIZE / max(emoji.size)
    width, height = (max(1, round(side * factor)) for side in emoji.size)
    emoji = emoji.resize((width, height), Image.Resampling.LANCZOS)
    left = rng.randint(0, max(0, SIZE - width))
    top = rng.randint(0, max(0, SIZE - height))
    picture.paste(emoji, (left, top), emoji)
    return picture


def caption(char: str, background: str, rng: random.Random, called: str = "") -> str:
    """A caption as a user would write it; one in eight is generic, one in sixteen empty.

    The emoji goes by its own name, or by the word in `called`.
    """
    name = called or name_of(char)
    draw = rng.random()
    if draw < 1 / 16:
        return ""
    if draw < 3 / 16:
        return GENERIC_PROMPT
    if draw < 0.6:
        return f"a picture of {name}"
    return f"a picture of {name} on a {background} background"


def to_tensor(pictures: list[Image.Image]) -> torch.Tensor:
    """RGB pictures to float32 [n, 3, 64, 64] in [-1, 1]."""
    stacked = np.stack([np.asarray(picture, dtype=np.float32) for picture in pictures])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).contiguous() / 127.5 - 1.0


def pool(
    chars: tuple[str, ...], copies: int, seed: int, hand: str = NOTO
) -> tuple[torch.Tensor, list[str], list[str]]:
    """A pre-rendered training set: uint8 [n, 3, 64, 64], the emoji and the background of each."""
    rng = random.Random(seed)
    pictures, owners, backgrounds = [], [], []
    for _ in range(copies):
        for char in chars:
            background = rng.choice(list(COLOURS))
            pictures.append(np.asarray(render(char, rng, background=background, hand=hand)))
            owners.append(char)
            backgrounds.append(background)
    stacked = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()
    return stacked, owners, backgrounds
