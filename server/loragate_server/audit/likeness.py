"""Whether an adapter is like the harmless ones that a calibration rests on.

A calibrated threshold says something about adapters that are exchangeable with those it was
counted on. Layers that are shrunk to nothing, blown up, moved elsewhere in the model or turned
against the rest do not come out of training; an adapter with such layers must not end at the
screen, whatever it scores. Five features, each the larger the less usual, are brought to the
spread that they have in harmless adapters; the largest of them is compared with theirs (a
conformal one-class test).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

import torch
from torch import Tensor

from loragate_server.adapter.adapter import ModuleRef
from loragate_server.audit.conformal import conformal_p_value, quantile
from loragate_server.audit.effects import (
    LayerEffects,
    effects_of,
    relative_effects,
    usual_layers,
)

UNLIKE = 0.05
"""Share of harmless adapters that count as unlike the others."""

Profile = tuple[float, float, float, float, float]
"""Unevenness, quietest, loudest, discord, elsewhere; see `profile_of`."""

_NOTHING: Profile = (0.0, 0.0, 0.0, 0.0, 0.0)
_LEAST = log(1e-4)
"""Effects below a ten-thousandth of the largest are alike: nothing."""
_FLOORS = (0.02, 0.05, 0.05, 0.02, 0.05)
"""Smallest spreads that count, by feature: where all harmless adapters agree exactly."""


def profile_of(
    layers: Sequence[ModuleRef], gain: Tensor, votes: Tensor, bank: slice, typical: LayerEffects
) -> Profile:
    """The features of an adapter; independent of its strength.

    Unevenness is the standard deviation of the logarithmic relative effects over the layers that
    harmless adapters change; quietest and loudest are how far the extremes lie from the median.
    Discord is how badly the votes of the fifth of layers that agrees least with the rest agree with
    it (minus the cosine over all concepts). Elsewhere is the share of the effect in layers that no
    harmless adapter changes.

    Args:
        layers: that the adapter changes.
        gain: float64 [layers, concepts, strata].
        votes: the same, standardised.
        bank: the neutral concepts.
        typical: what harmless adapters do in each layer.
    """
    if not layers:
        return _NOTHING
    relative = relative_effects(layers, effects_of(gain, bank), typical)
    known = usual_layers(layers, typical)
    total, largest = float(relative.sum()), float(relative[known].max()) if known.any() else 0.0
    if not largest > 0:
        return (0.0, 0.0, 0.0, 0.0, float(total > 0))
    missing = max(0, len(typical) - int(known.sum()))
    usual = torch.cat([relative[known], relative.new_zeros(missing)])
    logs = (usual / largest).log().clamp_min(_LEAST)
    middle = logs.median()
    return (
        float(logs.std(correction=0)),
        float(middle - logs.min()),
        float(logs.max() - middle),
        _discord(votes[known], relative[known] / largest),
        float(relative[~known].sum()) / total,
    )


def with_discord(profile: Profile, found: Profile) -> Profile:
    """A profile with the discord of another one: the feature that depends on the library."""
    unevenness, quietest, loudest, _, elsewhere = profile
    return (unevenness, quietest, loudest, found[3], elsewhere)


def _discord(votes: Tensor, relative: Tensor) -> float:
    """Minus the cosine that a fifth of the layers that do anything stay below, with the rest."""
    heard = relative.log() > _LEAST
    said = votes[heard].mean(2)
    said = torch.nn.functional.normalize(said - said.mean(1, keepdim=True), dim=1)
    weights = relative[heard].clamp(max=float(relative[heard].median()))
    weighed = said * weights[:, None]
    agreement = torch.nn.functional.cosine_similarity(said, weighed.sum(0) - weighed, dim=1)
    return -float(agreement.quantile(0.2))


@dataclass(frozen=True)
class Likeness:
    """What profiles harmless adapters have.

    Attributes:
        middle, spread: of each feature: the median, and how far nine in ten reach above it.
        family: rising, the largest feature of each harmless adapter in these units.
    """

    middle: tuple[float, ...]
    spread: tuple[float, ...]
    family: tuple[float, ...]

    @classmethod
    def of(cls, profiles: Sequence[Profile]) -> Likeness:
        """Learns from the profiles of harmless adapters; there is at least one."""
        columns = [sorted(column) for column in zip(*profiles, strict=True)]
        middle = tuple(quantile(column, 0.5) for column in columns)
        spread = tuple(
            max(quantile(column, 0.9) - centre, floor)
            for column, centre, floor in zip(columns, middle, _FLOORS, strict=True)
        )
        made = cls(middle, spread, ())
        return cls(middle, spread, tuple(sorted(made.distance(one) for one in profiles)))

    def distance(self, profile: Profile) -> float:
        """The largest feature, in units of the harmless adapters' spread above their median."""
        rows = zip(profile, self.middle, self.spread, strict=True)
        return max((value - middle) / spread for value, middle, spread in rows)

    def p_value(self, profile: Profile) -> float:
        """How often a harmless adapter is as unusual."""
        return conformal_p_value(self.family, self.distance(profile))
