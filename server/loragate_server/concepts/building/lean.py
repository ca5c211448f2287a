"""The lean way: micro-batches, checkpointed blocks, and sketches in place of whole gradients.

Text encoders run first and can leave the device while the denoiser works: by the chain rule their
own gradients need no more of it than the gradient of what they said.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from loragate_server.adapter.adapter import ModuleRef
from loragate_server.concepts.building.faults import memory_named, require_finite
from loragate_server.concepts.building.sketch import Layer, Sketch, Widths
from loragate_server.concepts.building.stratum import (
    LOSS_SCALE,
    Rows,
    layers_of,
    same_row,
    stored,
)
from loragate_server.concepts.building.taps import tapped
from loragate_server.models.base import BaseModel, Conditioning, per_row_loss

_REMEDY = "Choose a device with more memory, or end what else uses it."


def of_rows(
    base: BaseModel,
    rows: Rows,
    rank: int,
    widths: Widths,
    at_once: int,
    *,
    leave: bool = False,
) -> dict[str, Tensor]:
    """The directions of all layers, on the CPU; the model is as before when this ends.

    Args:
        base: the base model.
        rows: what the gradients are made of.
        rank: directions kept per layer.
        widths: of the sketches.
        at_once: rows of a micro-batch.
        leave: whether text encoders and VAE leave the device while the denoiser works.

    Raises:
        NoDecisionError: AUDIT_FAILED for a gradient that is not finite; OUT_OF_MEMORY.
    """
    layers = layers_of(base)
    with memory_named(base, f"the gradients of concept {rows.concept_id}", _REMEDY):
        sketches = {ref: Sketch(layer, widths, base.device) for ref, layer in layers.items()}
        _through(base, rows, layers, sketches, at_once, leave)
        norms, sides = {}, {}
        for ref in layers:
            norms[ref], left, right = sketches.pop(ref).finish(rank)
            sides[ref] = (left.half().cpu(), right.half().cpu())
        require_finite(base, rows, norms)
        return stored(norms, sides)


def _through(
    base: BaseModel,
    rows: Rows,
    layers: Mapping[ModuleRef, Layer],
    sketches: Mapping[ModuleRef, Sketch],
    at_once: int,
    leave: bool,
) -> None:
    """The passes: text encoders forward, denoiser both ways, text encoders both ways."""
    shown = {ref: sketch.add for ref, sketch in sketches.items()}
    own = {ref: one for ref, one in layers.items() if ref.component == base.denoiser_component}
    others = {ref: one for ref, one in layers.items() if ref not in own}
    with torch.no_grad():
        told = base.encode_prompts([rows.prompt])
    # float32, so that nothing is lost where the shares of micro-batches add up
    leaves = {name: each.float().requires_grad_() for name, each in told.tensors.items()}
    with away(base, leave), checkpointed(base.denoiser), tapped(own, shown):
        for first in range(0, len(rows), at_once):
            part = slice(first, first + at_once)
            torch.autograd.backward(loss_of(base, rows, part, told, leaves))
    if not others:
        return
    with torch.enable_grad(), tapped(others, shown):
        said = base.encode_prompts([rows.prompt]).tensors
        pulled = {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}
        ends = [name for name in pulled if said[name].requires_grad]
        torch.autograd.backward(
            [said[name] for name in ends], [pulled[name].to(said[name]) for name in ends]
        )


def loss_of(
    base: BaseModel, rows: Rows, part: slice, told: Conditioning, leaves: Mapping[str, Tensor]
) -> Tensor:
    """What some of the rows add to the mean of log losses, scaled."""
    with torch.enable_grad():
        same = same_row(len(rows.noisy[part]), rows.noisy.device)
        heard = {name: leaf.to(told.tensors[name].dtype) for name, leaf in leaves.items()}
        prediction = base.denoise(
            rows.noisy[part], rows.times[part], Conditioning(heard).rows(same)
        )
        loss = per_row_loss(prediction, rows.target[part]).log().sum()
        return loss * (LOSS_SCALE / len(rows))


@contextmanager
def checkpointed(denoiser: nn.Module) -> Iterator[None]:
    """Inside it, the blocks of a diffusers model keep their inputs alone for the backward pass."""
    switch: Any = denoiser
    before = switch.is_gradient_checkpointing
    switch.enable_gradient_checkpointing()
    try:
        yield
    finally:
        if not before:
            switch.disable_gradient_checkpointing()


@contextmanager
def away(base: BaseModel, leave: bool) -> Iterator[None]:
    """Inside it, what the denoiser does without lies in the memory of the machine, if it may."""
    device = base.device
    if not leave or device.type == "cpu":
        yield
        return
    resting = [one for one in base.beside().values() if _device(one) == device]
    try:
        for one in resting:
            one.to("cpu")
        torch.cuda.empty_cache()
        yield
    finally:
        for one in resting:
            one.to(device)


def _device(module: nn.Module) -> torch.device:
    return next(module.parameters()).device
