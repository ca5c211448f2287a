"""Reference pictures: read with limits, brought to the size that a base model expects."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from loragate_server.errors import ErrorReason, NoDecisionError

if TYPE_CHECKING:
    from loragate_server.concepts.library import Concept

FORMATS = ("PNG", "JPEG", "WEBP")
MAX_BYTES = 3 * 2**20
MAX_PIXELS = 16_000_000
MIN_SIDE = 16


def read_picture(data: bytes, label: str) -> Image.Image:
    """Decodes one picture to RGB, upright, transparency on white.

    Args:
        data: a PNG, JPEG or WebP file.
        label: what error messages call it.

    Raises:
        NoDecisionError: CONCEPT_PICTURES_INVALID.
    """
    if len(data) > MAX_BYTES:
        raise _invalid(label, f"has {len(data)} bytes, more than {MAX_BYTES}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(data), formats=FORMATS)
            width, height = picture.size
            if width * height > MAX_PIXELS or min(width, height) < MIN_SIDE:
                raise _invalid(label, f"is {width}x{height} pixels")
            picture.load()
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Warning) as error:
        raise _invalid(label, f"cannot be read ({type(error).__name__})") from error
    upright = ImageOps.exif_transpose(picture).convert("RGBA")
    white = Image.new("RGBA", upright.size, "white")
    return Image.alpha_composite(white, upright).convert("RGB")


def load_pictures(concept: Concept, size: tuple[int, int]) -> Tensor:
    """Every reference picture of a concept, cropped to the centre and resized.

    Args:
        concept: whose `picture_files` are read.
        size: height and width in pixels.

    Returns:
        float32 [n, 3, height, width] in [-1, 1].

    Raises:
        NoDecisionError: CONCEPT_PICTURES_INVALID.
    """
    return to_tensor([read_file(path) for path in concept.picture_files], size)


def read_file(path: Path) -> Image.Image:
    """`read_picture` of a file."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _invalid(path.name, f"cannot be read ({error.strerror})") from error
    return read_picture(data, path.name)


def to_tensor(pictures: Sequence[Image.Image], size: tuple[int, int]) -> Tensor:
    """RGB pictures to float32 [n, 3, height, width] in [-1, 1]."""
    height, width = size
    fitted = [
        ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS) for picture in pictures
    ]
    stacked = np.stack([np.asarray(picture, dtype=np.float32) for picture in fitted])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).contiguous() / 127.5 - 1.0


def _invalid(label: str, fault: str) -> NoDecisionError:
    return NoDecisionError(
        ErrorReason.CONCEPT_PICTURES_INVALID,
        f"Picture {label} {fault}.",
        remedy=(
            f"Send PNG, JPEG or WebP files of at most {MAX_BYTES} bytes and {MAX_PIXELS} pixels, "
            f"{MIN_SIDE} pixels or more on each side."
        ),
        metadata={"picture": label},
    )
