"""Pictures that a base model draws itself, each drawn once and kept.

The pipeline is diffusers' own, as an image server would use it. A picture depends on the base
model, the prompt, the seed and the settings alone, so that work which was interrupted goes on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from loragate_server.concepts.pictures import MIN_SIDE
from loragate_server.files import whole_file
from loragate_server.models.base import BaseModel
from loragate_server.models.pipeline import PipelineModel
from loragate_server.trials.errors import TrialError
from loragate_server.trials.memory import memory_told

_METHOD = "1"
_TRIES = 3
_BLANK = 8
"""Levels of 256 that the brightest and the darkest spot of a blank picture lie apart at most."""


@dataclass(frozen=True)
class DrawingSettings:
    """How pictures are drawn.

    Attributes:
        steps: of the sampler.
        guidance: as the pipeline understands it; its own default when None.
        seed: of all pictures.
    """

    steps: int = 30
    guidance: float | None = None
    seed: int = 0


class Artist:
    """Draws on one base model.

    Args:
        base: the base model; its pipeline draws.
        folder: where pictures are kept.
        settings: how.

    Raises:
        TrialError: the base model has no pipeline, or draws pictures of no use.
    """

    def __init__(
        self, base: BaseModel, folder: Path, settings: DrawingSettings | None = None
    ) -> None:
        if not isinstance(base, PipelineModel):
            raise TrialError(f"base model {base.name} has no pipeline to draw with")
        if min(base.picture_size) < MIN_SIDE:
            raise TrialError(f"base model {base.name} draws less than {MIN_SIDE} pixels a side")
        self.base = base
        self.settings = settings or DrawingSettings()
        self._folder = folder / base.digest[:16]

    def picture(self, prompt: str, index: int = 0) -> Path:
        """The picture of a prompt with this number, drawn where there is none yet.

        Raises:
            TrialError: the base model draws nothing but blank pictures of it.
            OSError: it cannot be kept.
        """
        told = repr((_METHOD, prompt, index, asdict(self.settings), self.base.picture_size))
        key = hashlib.sha256(told.encode()).hexdigest()
        file = self._folder / f"{key[:32]}.png"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            drawn = self._draw(prompt, int(key[:12], 16))
            with whole_file(file) as partial:
                drawn.save(partial, "PNG")
        return file

    def _draw(self, prompt: str, seed: int) -> Image.Image:
        for attempt in range(_TRIES):
            drawn = self._once(prompt, seed + attempt)
            if not _blank(drawn):
                return drawn
        raise TrialError(
            f"base model {self.base.name} drew {_TRIES} blank pictures of {prompt!r}: give other "
            "words by --nouns, or another --dtype where its numbers overflow"
        )

    def _once(self, prompt: str, seed: int) -> Image.Image:
        height, width = self.base.picture_size
        wanted: dict[str, Any] = {"num_inference_steps": self.settings.steps}
        if self.settings.guidance is not None:
            wanted["guidance_scale"] = self.settings.guidance
        with memory_told(self.base), _decoding_in_its_dtype(self.base), torch.inference_mode():
            [drawn] = self.base.pipeline(
                prompt,
                height=height,
                width=width,
                generator=torch.Generator("cpu").manual_seed(seed),
                **wanted,
            ).images
        picture: Image.Image = drawn.convert("RGB")
        return picture


@contextmanager
def _decoding_in_its_dtype(base: PipelineModel) -> Iterator[None]:
    """Inside it, the VAE takes latents of another dtype than its own.

    `PipelineModel` holds some in float32, as they overflow in half precision. Pipelines would hand
    them the denoiser's dtype.
    """
    vae: Any = base.pipeline.vae
    decode = vae.decode

    def lifted(latents: Tensor, *others: Any, **named: Any) -> Any:
        return decode(latents.to(vae.dtype), *others, **named)

    vae.decode = lifted
    try:
        yield
    finally:
        del vae.decode


def _blank(picture: Image.Image) -> bool:
    """Whether there is nothing to be seen, as when numbers overflow or a checker blackens it."""
    low, high = picture.convert("L").getextrema()
    return float(high) - float(low) <= _BLANK  # type: ignore[arg-type]
