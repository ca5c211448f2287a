"""How much each kind of layer says about a learned concept: the weights of the screen's votes.

Layers do not carry a concept alike: in a UNet the values and outputs of cross-attention say three
times as much as its queries. The best linear detector of a known pattern in white noise weighs
every observation by its mean under the pattern (the matched filter; Van Trees, "Detection,
Estimation, and Modulation Theory", part I, 4.2). Votes are in standard deviations of the neutral
bank, so that mean is the average vote for the learned concept, over adapters that are known to have
learned one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from loragate_server.adapter.adapter import ModuleRef
from loragate_server.audit.effects import LayerEffects

MINIMUM_LEARNED = 20
"""Fewer learned adapters say more about themselves than about layers; then all weigh alike."""

LayerWeights = Mapping[str, tuple[float, ...]]
"""Role of a layer to its weight in each stratum; empty: every layer weighs 1."""


@dataclass(frozen=True)
class Scales:
    """What a vote weighs, from a calibration; without one all roles and all effects are alike.

    Attributes:
        roles: how much each kind of layer says.
        effects: what a harmless adapter does in each layer, the unit of effects.
    """

    roles: LayerWeights = field(default_factory=dict)
    effects: LayerEffects = field(default_factory=dict)


NO_SCALES = Scales()


def role_of(ref: ModuleRef) -> str:
    """What a layer is for, whatever its block: "text_encoder:self_attn.q_proj"."""
    parts = [part for part in ref.module.split(".") if not part.isdigit()]
    return f"{ref.component}:{'.'.join(parts[-2:])}"


def weights_of(layers: Sequence[ModuleRef], strata: int, weights: LayerWeights) -> Tensor:
    """The weights of these layers, float64 [layers, strata].

    A role that no learned adapter has changed gets the average of those that one has.
    """
    if not weights:
        return torch.ones(len(layers), strata, dtype=torch.float64)
    average = tuple(sum(column) / len(weights) for column in zip(*weights.values(), strict=True))
    rows = [weights.get(role_of(ref), average) for ref in layers]
    return torch.tensor(rows, dtype=torch.float64).reshape(len(layers), strata)


def fit_weights(votes: Iterable[tuple[Sequence[ModuleRef], Tensor]]) -> LayerWeights:
    """Weights from learned concepts; none where they are too few.

    Args:
        votes: of each learned concept the changed layers, and how far it stands above the bank in
            each, float64 [layers, strata].
    """
    by_role: dict[str, list[Tensor]] = {}
    count = 0
    for layers, rows in votes:
        count += 1
        for ref, row in zip(layers, rows, strict=True):
            by_role.setdefault(role_of(ref), []).append(row)
    if count < MINIMUM_LEARNED:
        return {}
    # a layer that votes against what was learned is noise, and must not be turned round
    means = {role: torch.stack(rows).mean(0).clamp_min(0) for role, rows in by_role.items()}
    fitted = {role: tuple(mean.tolist()) for role, mean in sorted(means.items())}
    return fitted if any(any(values) for values in fitted.values()) else {}
