"""What one gradient is made of, whichever way it is made: rows of one concept at one time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from loragate_server.adapter.adapter import ModuleRef
from loragate_server.concepts.probes import ProbeSet
from loragate_server.models.base import BaseModel

LOSS_SCALE = 1024.0
"""Gradients in half precision would vanish without it; lengths are not kept, so it cancels."""


def key(side: str, ref: ModuleRef) -> str:
    """Name of a stored tensor: "left", "right" or "norm" of a layer."""
    return f"{side}.{ref.component}.{ref.module}"


def layers_of(base: BaseModel) -> dict[ModuleRef, nn.Linear | nn.Conv2d]:
    """The layers that an adapter may change, of the denoiser and of the text encoders."""
    found: dict[ModuleRef, nn.Linear | nn.Conv2d] = {}
    for (component, name), module in base.adaptable_modules().items():
        assert isinstance(module, nn.Linear | nn.Conv2d)  # noqa: S101 - it says so
        found[ModuleRef(component, name)] = module
    return found


def weights_of(base: BaseModel) -> dict[ModuleRef, nn.Parameter]:
    """Their weights."""
    found = {}
    for ref, layer in layers_of(base).items():
        assert isinstance(layer.weight, nn.Parameter)  # noqa: S101 - as every layer of its kind
        found[ref] = layer.weight
    return found


@dataclass(frozen=True)
class Rows:
    """Rows of one concept at one time: they give one gradient per layer.

    Attributes:
        concept_id: of the concept.
        time: noise level, as a share of the schedule.
        prompt: what all rows are told.
        noisy: [rows, ...latent], ready for the denoiser.
        target: same shape, what a perfect denoiser predicts.
        times: float32 [rows].
    """

    concept_id: str
    time: float
    prompt: str
    noisy: Tensor
    target: Tensor
    times: Tensor

    def __len__(self) -> int:
        return len(self.noisy)

    @classmethod
    def of(cls, probes: ProbeSet, concept: int, level: int) -> Rows:
        """Those of a concept, by its number, at a time, by its number."""
        rows = slice(level, None, len(probes.plan.times))
        device = probes.times.device
        # made in inference mode, which autograd refuses; a copy is an ordinary tensor
        return cls(
            probes.concepts[concept].concept_id,
            probes.plan.times[level],
            probes.prompt_of(concept),
            probes.noisy[concept, rows].to(device, copy=True),
            probes.target[concept, rows].to(device, copy=True),
            probes.times[rows].clone(),
        )


def stored(
    norms: Mapping[ModuleRef, Tensor], sides: Mapping[ModuleRef, tuple[Tensor, Tensor]]
) -> dict[str, Tensor]:
    """Norms (scalars, with the loss scale in) and directions of all layers as they are kept."""
    made = {}
    for ref, (left, right) in sides.items():
        made[key("norm", ref)] = (norms[ref] / LOSS_SCALE).reshape(1).cpu()
        made[key("left", ref)] = left.half().cpu()
        made[key("right", ref)] = right.half().cpu()
    return made


def same_row(count: int, device: torch.device) -> Tensor:
    """The index by which one row of conditioning is told to `count` rows: int64 [count]."""
    return torch.zeros(count, dtype=torch.long, device=device)
