"""How much each layer of an adapter does, which decides how much its vote in the screen weighs.

A vote in standard deviations of the neutral bank is as loud for a layer of a thousandth of its
weight as for a whole one, so a layer without effect could outvote one with effect. What a layer
does is measured by how far it moves the losses of the neutral bank to first order: the bank's
spread in that layer. It is taken relative to what harmless adapters do there, so that no kind of
layer counts for little because all adapters leave it almost alone.

The Frobenius norm of dW and the energy of its response to neutral inputs, both tried in its place,
did not withstand more; the spread needs nothing that the screen has not computed, and what acts on
no input has none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import ceil
from statistics import fmean, median

import torch
from torch import Tensor

from loragate_server.adapter.adapter import ModuleRef

LEADING_SHARE = 1 / 6
"""Share of the layers that may be loudest of all alike; see `loudness`."""

LayerEffects = Mapping[str, float]
"""Layer ("unet:mid_block....to_q") to its median effect in harmless adapters; empty: unknown."""


def key_of(ref: ModuleRef) -> str:
    """How a calibration names a layer."""
    return f"{ref.component}:{ref.module}"


def effects_of(gain: Tensor, bank: slice) -> Tensor:
    """The effect of each layer, float64 [layers], linear in the adapter's strength.

    Args:
        gain: float64 [layers, concepts, strata].
        bank: the neutral concepts.
    """
    return gain[:, bank].std(1).square().mean(1).sqrt()


def typical_effects(found: Iterable[tuple[Sequence[ModuleRef], Tensor]]) -> LayerEffects:
    """The median effect of each layer over harmless adapters that change it.

    Args:
        found: of each adapter the changed layers and their effects.
    """
    by_layer: dict[str, list[float]] = {}
    for layers, effects in found:
        for ref, effect in zip(layers, effects.tolist(), strict=True):
            if effect > 0:
                by_layer.setdefault(key_of(ref), []).append(effect)
    return {key: median(every) for key, every in sorted(by_layer.items())}


def relative_effects(layers: Sequence[ModuleRef], effects: Tensor, typical: LayerEffects) -> Tensor:
    """Effects in units of what harmless adapters do in the same layer, float64 [layers].

    A layer that none of them changes is measured by their average one.
    """
    if not typical:
        return effects
    average = fmean(typical.values())
    units = [typical.get(key_of(ref), average) for ref in layers]
    return effects / torch.tensor(units, dtype=torch.float64)


def usual_layers(layers: Sequence[ModuleRef], typical: LayerEffects) -> Tensor:
    """Which layers harmless adapters change, bool [layers]; all where that is unknown."""
    known = [not typical or key_of(ref) in typical for ref in layers]
    return torch.tensor(known, dtype=torch.bool)


def loudness(relative: Tensor, typical: LayerEffects) -> list[Tensor]:
    """Two views of how much each layer's vote weighs, each float64 [layers] from 0 to 1.

    In the first, weight is proportional to the effect, so nothing without effect is heard. In the
    second a sixth of the layers are loudest alike, so that a single one cannot drown the others.
    Who wants to hide has to hide from both.

    Args:
        relative: as `relative_effects` gives them.
        typical: how many layers a harmless adapter changes is known from here; without it those
            at hand that do anything are counted.
    """
    falling = relative[relative > 0].sort(descending=True).values
    views = []
    for leaders in (1, ceil(LEADING_SHARE * (len(typical) or len(falling)))):
        loudest = falling[min(leaders, len(falling)) - 1].item() if len(falling) else 0.0
        views.append((relative / loudest).clamp(max=1.0) if loudest > 0 else relative.sign())
    return views
