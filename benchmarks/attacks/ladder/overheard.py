"""The screen of an adapter that is being trained, with a gradient: what an attacker hears of it.

The same sums as `audit.screen` makes of a finished file, over the live layers of a pipeline. An
audit measures without gradients, so the products are made anew here; a test holds both together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from loragate_server.adapter.adapter import ModuleRef
from loragate_server.audit.effects import effects_of, loudness, relative_effects
from loragate_server.audit.score import above_bank
from loragate_server.audit.screen import standardised
from loragate_server.audit.weights import Scales, weights_of
from loragate_server.concepts.gradients import ConceptGradients

_BANK = slice(1, None)


@dataclass(frozen=True)
class Overheard:
    """Scores of one concept, each in standard deviations above the bank, scalars with a gradient.

    Attributes:
        score: of all strata.
        named: of those whose rows were told the name.
        share: of what lies where the name acts.
    """

    score: Tensor
    named: Tensor
    share: Tensor

    def above(self, unsuspicious: float) -> Tensor:
        """By how much all of them together are above what is no reason to look closer."""
        every = torch.stack([self.score, self.named, self.share])
        return (every - unsuspicious).clamp_min(0).sum()


@dataclass(frozen=True)
class _Layer:
    """One live layer, and what the audit holds of it: of the concept first, then of the bank.

    Attributes:
        left, right: float32 [concepts, strata * rank, out] and [..., in].
        span: float32 [concepts, rank, width] where the names act, None in layers without text.
        reads: whether that is the side that the layer reads.
    """

    ref: ModuleRef
    live: LoraLayer
    left: Tensor
    right: Tensor
    span: Tensor | None
    reads: bool

    def factors(self) -> tuple[Tensor, Tensor]:
        """Down [r, in] and up [out, r], the scale in it."""
        down, up = (part["default"].weight for part in (self.live.lora_A, self.live.lora_B))
        return down, up * self.live.scaling["default"]

    def log_share(self) -> Tensor | None:
        """As `audit.naming`, float32 [concepts]."""
        if self.span is None:
            return None
        down, up = self.factors()
        change = up @ down
        moved = self.span @ (change.T if self.reads else change)
        share = moved.square().sum((1, 2)) / change.square().sum().clamp_min(1e-20)
        return share.clamp_min(1e-12).log() / 2


class Listener:
    """Overhears one concept in a denoiser with one adapter, of plain factors.

    Args:
        denoiser: with the adapter's layers attached.
        gradients: those that the attacker made or has.
        concept_id: a forbidden concept of theirs.
        scales: of the calibration that he has.
    """

    def __init__(
        self, denoiser: nn.Module, gradients: ConceptGradients, concept_id: str, scales: Scales
    ) -> None:
        ids = [one.concept_id for one in gradients.concepts]
        wanted = [ids.index(concept_id), *range(gradients.forbidden_count, len(ids))]
        self._layers = [
            _layer(ModuleRef("unet", name), module, gradients, wanted)
            for name, module in denoiser.named_modules()
            if isinstance(module, LoraLayer)
        ]
        self._refs = [one.ref for one in self._layers]
        self._told = [row for row, stratum in enumerate(gradients.strata) if stratum.named]
        self._strata, self._scales = len(gradients.strata), scales
        self._roles = weights_of(self._refs, self._strata, scales.roles)

    @property
    def silent(self) -> bool:
        """Whether the adapter changes nothing yet, and has no gradient of what is heard."""
        return not any(bool(one.factors()[1].any()) for one in self._layers)

    def hear(self) -> Overheard:
        """As `audit.screen.hear` of the adapter as it is now."""
        gain = torch.stack([self._gain(one) for one in self._layers])
        votes = standardised(gain, _BANK) * self._roles.unsqueeze(1)
        typical = self._scales.effects
        relative = relative_effects(self._refs, effects_of(gain, _BANK), typical)
        views = loudness(relative * (self._roles.amax(1) > 0), typical)
        totals = torch.stack([(votes * view.reshape(-1, 1, 1)).sum(0) for view in views])
        return Overheard(
            _highest(totals.sum(2)), _highest(totals[:, :, self._told].sum(2)), self._share(views)
        )

    def _gain(self, layer: _Layer) -> Tensor:
        """Float64 [concepts, strata]."""
        down, up = layer.factors()
        products = ((layer.left @ up) * (layer.right @ down.T)).sum(-1)
        gain: Tensor = -products.unflatten(1, (self._strata, -1)).sum(2).double()
        return gain

    def _share(self, views: Sequence[Tensor]) -> Tensor:
        shares = [one.log_share() for one in self._layers]
        pairs = zip(views[-1], shares, strict=True)
        told = [(weight, share) for weight, share in pairs if share is not None]
        weights = torch.stack([weight for weight, _ in told]) if told else torch.zeros(0)
        if not bool(weights.sum() > 0):
            return torch.zeros((), dtype=torch.float64)
        total = torch.stack([weight * share.double() for weight, share in told]).sum(0)
        share: Tensor = above_bank(total / weights.sum(), 1)[0]
        return share


def _highest(totals: Tensor) -> Tensor:
    """Of the concept, from [views, concepts]."""
    return torch.stack([above_bank(total, 1)[0] for total in totals]).amax()


def _layer(
    ref: ModuleRef, live: LoraLayer, gradients: ConceptGradients, wanted: Sequence[int]
) -> _Layer:
    held, count = gradients.layers[ref], len(gradients.concepts)
    left, right = (
        side.unflatten(0, (count, -1))[list(wanted)].float() for side in (held.left, held.right)
    )
    span = gradients.spans.get(ref)
    rows = None if span is None else span.rows[list(wanted)].float()
    return _Layer(ref, live, left, right, rows, span is not None and span.side == "in")
