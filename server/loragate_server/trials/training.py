"""Trains one adapter on a base model, by the interface that audits use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from loragate_server.concepts.pictures import read_file, to_tensor
from loragate_server.models.base import BaseModel, Conditioning, per_row_loss
from loragate_server.models.pipeline import PipelineModel
from loragate_server.trials.descent import descend, nothing
from loragate_server.trials.errors import TrialError
from loragate_server.trials.layers import fresh_layers, save_layers
from loragate_server.trials.lessons import Lesson
from loragate_server.trials.memory import memory_told
from loragate_server.trials.recipe import Recipe

METHOD = "1"
"""Raised when the same lesson and recipe train another adapter."""

_FLOWS = ("sd3", "flux")
_WEIGHT_DECAY = 1e-4


def train_adapter(
    base: BaseModel,
    lesson: Lesson,
    recipe: Recipe,
    path: Path,
    after: Callable[[int], None] = nothing,
) -> None:
    """Trains and writes one adapter. The base model is as before, whatever happens.

    Args:
        base: made of a pipeline.
        lesson: what it learns.
        recipe: how; the same lesson and recipe give the same numbers on the same machine.
        path: the file to write, which ends in .safetensors.
        after: told the number of each step that is done.

    Raises:
        TrialError: the training diverges, or the base model has no pipeline.
        NoDecisionError: CONCEPT_PICTURES_INVALID.
        OSError: it cannot be written.
    """
    if not isinstance(base, PipelineModel):
        raise TrialError(f"base model {base.name} has no pipeline to train on")
    with memory_told(base):
        _train(base, lesson, recipe, path, after)


def _train(
    base: PipelineModel,
    lesson: Lesson,
    recipe: Recipe,
    path: Path,
    after: Callable[[int], None],
) -> None:
    latents, conditioning, rows = _data(base, lesson)
    generator = torch.Generator().manual_seed(recipe.seed)
    with fresh_layers(base, recipe.rank, recipe.seed) as parameters:
        optimizer = torch.optim.AdamW(
            parameters, lr=recipe.learning_rate, weight_decay=_WEIGHT_DECAY
        )
        half = base.dtype == torch.float16
        scaler = torch.amp.GradScaler(base.device.type) if half else None

        def loss_of(_: int) -> Tensor:
            index = torch.randint(len(latents), (recipe.batch,), generator=generator)
            chosen = latents[index.to(latents.device)]
            noise = torch.randn(chosen.shape, generator=generator).to(chosen)
            times = _times(base, recipe.batch, generator)
            noisy = base.add_noise(chosen, noise, times)
            told = conditioning.rows(rows[index].to(base.device))
            prediction = base.denoise(noisy, times, told)
            return per_row_loss(prediction, base.target(chosen, noise, times)).mean()

        with torch.enable_grad():
            descend(optimizer, loss_of, range(recipe.steps), after=after, scaler=scaler)
        save_layers(base, path)


def _data(base: PipelineModel, lesson: Lesson) -> tuple[Tensor, Conditioning, Tensor]:
    """Latents of the pictures, what the denoiser is told of each caption, and which is whose."""
    captions = sorted({caption for _, caption in lesson.examples})
    latents = []
    with torch.no_grad():
        for path, _ in lesson.examples:
            picture, _ = read_file(path)
            latents.append(base.encode_pictures(to_tensor([picture], base.picture_size)))
        conditioning = base.encode_prompts(captions)
    rows = torch.tensor([captions.index(caption) for _, caption in lesson.examples])
    return torch.cat(latents), conditioning, rows


def _times(base: BaseModel, count: int, generator: torch.Generator) -> Tensor:
    """Noise levels as trainers draw them: even for a schedule of betas, mostly mid for flows."""
    if base.family in _FLOWS:
        return torch.randn(count, generator=generator).sigmoid()
    return 1 - torch.rand(count, generator=generator)  # in (0, 1]
