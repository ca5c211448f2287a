"""Reference pictures: read with limits, brought to the size that a base model expects."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from loragate_server.concepts.concept import Concept
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.files import whole_file

FORMATS = ("PNG", "JPEG", "WEBP")
MAX_BYTES = 3 * 2**20
"""Of a picture that is sent; it has to fit into a message."""
MAX_STORED_BYTES = 64 * 2**20
"""Of a picture file in a library: `MAX_PIXELS` as PNG at its worst fit."""
MAX_PIXELS = 16_000_000
MIN_SIDE = 16
STORED_SIDE = 1024
"""No base model looks closer than this."""


def read_picture(data: bytes, label: str, max_bytes: int = MAX_BYTES) -> Image.Image:
    """Decodes one picture to RGB, upright, transparency on white; the first frame of several.

    Args:
        data: a PNG, JPEG or WebP file.
        label: what error messages call it.
        max_bytes: how long `data` may be.

    Raises:
        NoDecisionError: CONCEPT_PICTURES_INVALID.
    """
    with _refusing(label):
        return _decode(_opened(data, label, max_bytes))


@contextmanager
def _refusing(label: str) -> Iterator[None]:
    """Pillow's decoders raise whatever a crafted file makes them stumble over."""
    try:
        yield
    except NoDecisionError:
        raise
    except Exception as error:
        raise _invalid(label, f"cannot be read ({type(error).__name__})") from error


def _opened(data: bytes, label: str, max_bytes: int) -> Image.Image:
    """A picture of which the header alone was read, and has sizes that are allowed."""
    if len(data) > max_bytes:
        raise _invalid(label, f"has more than {max_bytes} bytes")
    picture: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
    width, height = picture.size
    if width * height > MAX_PIXELS or min(width, height) < MIN_SIDE:
        raise _invalid(label, f"is {width}x{height} pixels")
    return picture


def _decode(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):  # 16 bits of gray, which Pillow would cut off at 255
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    upright = ImageOps.exif_transpose(picture).convert("RGBA")
    white = Image.new("RGBA", upright.size, "white")
    return Image.alpha_composite(white, upright).convert("RGB")


def read_file(path: Path) -> tuple[Image.Image, str]:
    """A picture of a library, and the sha256 (lower-case hexadecimal) of its bytes.

    Raises:
        NoDecisionError: CONCEPT_PICTURES_INVALID.
    """
    data = _bytes_of(path)
    picture = read_picture(data, path.name, MAX_STORED_BYTES)
    return picture, hashlib.sha256(data).hexdigest()


def digest_of_file(path: Path) -> str:
    """The sha256 of a picture of a library, whose header is looked at and whose pixels are not.

    A large library would take minutes to open. Who needs the pixels finds out whether they are
    whole; what was made of the same bytes before needs them no more.

    Raises:
        NoDecisionError: CONCEPT_PICTURES_INVALID.
    """
    data = _bytes_of(path)
    with _refusing(path.name):
        _opened(data, path.name, MAX_STORED_BYTES)
    return hashlib.sha256(data).hexdigest()


def _bytes_of(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_STORED_BYTES + 1)
    except OSError as error:
        raise _invalid(path.name, f"cannot be read ({error.strerror})") from error


def save_picture(picture: Image.Image, path: Path) -> None:
    """Writes a picture into a library, as PNG and no larger than any base model needs it."""
    with whole_file(path) as partial:
        partial.write_bytes(as_png(picture))


def taken_in(data: bytes, label: str) -> bytes:
    """A picture that was sent, decoded and written anew as PNG of at most `MAX_BYTES`.

    What it held beside its pixels, such as where it was taken, is gone.

    Raises:
        NoDecisionError: CONCEPT_PICTURES_INVALID.
    """
    picture = read_picture(data, label)
    while len(written := as_png(picture)) > MAX_BYTES:
        picture = picture.reduce(2)  # long or noisy; it stays wide enough for every base model
    return written


def as_stored(picture: Image.Image) -> Image.Image:
    """A picture as a library holds it, no larger than any base model needs it."""
    shrink = STORED_SIDE / min(picture.size)
    if shrink >= 1:
        return picture
    width, height = (max(STORED_SIDE, round(side * shrink)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def as_png(picture: Image.Image) -> bytes:
    """The file that a library holds of a picture."""
    stream = io.BytesIO()
    as_stored(picture).save(stream, "PNG")
    return stream.getvalue()


def load_pictures(concept: Concept, size: tuple[int, int], limit: int | None = None) -> Tensor:
    """Reference pictures of a concept, cropped to the centre and resized.

    Args:
        concept: whose `picture_files` are read.
        size: height and width in pixels.
        limit: read the first so many only; all when None.

    Returns:
        float32 [n, 3, height, width] in [-1, 1].

    Raises:
        NoDecisionError: CONCEPT_PICTURES_INVALID, also for a file that is no longer the one that
            the library was opened with: probes must be of the pictures that the digest names.
    """
    pictures = []
    for path, expected in zip(
        concept.picture_files[:limit], concept.picture_sha256[:limit], strict=True
    ):
        picture, sha256 = read_file(path)
        if sha256 != expected:
            raise _invalid(path.name, "has changed since the library was opened")
        pictures.append(picture)
    return to_tensor(pictures, size)


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
