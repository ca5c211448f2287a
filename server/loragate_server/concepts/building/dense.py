"""The dense way: every layer's gradient in whole, from all rows at once. Exact, and large."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from loragate_server.concepts.building.compress import compress
from loragate_server.concepts.building.faults import memory_named, require_finite
from loragate_server.concepts.building.stratum import (
    LOSS_SCALE,
    Rows,
    same_row,
    stored,
    weights_of,
)
from loragate_server.models.base import BaseModel, per_row_loss

_REMEDY = "Let `gradients.kind` be `lean`, or choose a device with more memory."


def of_rows(base: BaseModel, rows: Rows, rank: int) -> dict[str, Tensor]:
    """The directions of all layers, on the CPU; the model is as before when this ends.

    Raises:
        NoDecisionError: AUDIT_FAILED for a gradient that is not finite; OUT_OF_MEMORY.
    """
    weights = weights_of(base)
    with memory_named(base, f"the gradients of concept {rows.concept_id}", _REMEDY):
        with differentiable(weights.values()):
            gradients = gradients_of(base, rows, list(weights.values()))
        made = dict(zip(weights, gradients, strict=True))
        norms = {ref: gradient.float().norm() for ref, gradient in made.items()}
        require_finite(base, rows, norms)
        sides = {ref: compress(each.flatten(1).float(), rank) for ref, each in made.items()}
        return stored(norms, sides)


@contextmanager
def differentiable(weights: Iterable[nn.Parameter]) -> Iterator[None]:
    """Inside it, these weights have gradients."""
    try:
        for weight in weights:
            weight.requires_grad_(True)
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(False)


def gradients_of(base: BaseModel, rows: Rows, weights: list[nn.Parameter]) -> tuple[Tensor, ...]:
    """d(mean log loss)/dW, dense, by layer; zeros where it has none."""
    with torch.enable_grad():
        told = base.encode_prompts([rows.prompt]).rows(same_row(len(rows), rows.noisy.device))
        prediction = base.denoise(rows.noisy, rows.times, told)
        loss = per_row_loss(prediction, rows.target).log().mean() * LOSS_SCALE
        return torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
