"""A base model's shapes without its weights: a twin on the device `meta`."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from loragate_server.concepts.building.stratum import Rows
from loragate_server.models.base import BaseModel, Conditioning

META = torch.device("meta")


def twin_of(base: BaseModel) -> BaseModel:
    """The base model's denoiser on `meta`, in its own precision, with nothing beside it."""
    return base.with_components({base.denoiser_component: _without_weights(base.denoiser)})


def rows_of(base: BaseModel, latent: tuple[int, ...], count: int) -> Rows:
    """So many rows, without numbers, of latents of a shape [c, h, w]."""
    shape = (count, *latent)
    dtype = next(base.denoiser.parameters()).dtype
    noisy = torch.empty(shape, device=META, dtype=dtype)
    target = torch.empty(shape, device=META, dtype=dtype)
    return Rows("", 0.0, "", noisy, target, torch.empty(count, device=META))


def without_numbers(told: Conditioning) -> Conditioning:
    """Conditioning of the same shapes on `meta`."""
    return Conditioning({name: each.detach().to(META) for name, each in told.tensors.items()})


def _without_weights(module: nn.Module) -> nn.Module:
    """A copy whose weights have shapes only: they are put in place of the real ones in the copy."""
    kept: dict[int, Any] = {}
    for tensor in (*module.parameters(), *module.buffers()):
        kept[id(tensor)] = _empty(tensor)
    twin = copy.deepcopy(module, kept)
    for each in twin.modules():
        # What hangs on the real model is no part of its shapes, and may not know this device.
        each._forward_hooks.clear()
        each._forward_pre_hooks.clear()
    return twin


def _empty(tensor: Tensor) -> Tensor:
    bare = torch.empty_like(tensor, device=META)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(bare, requires_grad=False)
    return bare
