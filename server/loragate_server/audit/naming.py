"""How much of what an adapter does to text lies where a concept's name acts.

In each layer that reads text: the share of the change's energy, `|dW X^T|^2 / |dW|^2` or
`|X dW|^2 / |dW|^2`, with X the directions of the name (`concepts.naming`). It knows neither sign
nor strength, and no picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from loragate_kernels.lora_response import LowRank
from loragate_server.adapter.adapter import ModuleRef
from loragate_server.concepts.naming import NameSpan

_LEAST = 1e-12
"""Shares below are alike: nothing."""


@dataclass(frozen=True)
class NameShares:
    """The shares of one use of adapters.

    Attributes:
        rows: which of the changed layers read text, counted in their order.
        log_share: float64 [rows, concepts], half the logarithm of each share; 0 for all concepts in
            a layer that does nothing.
    """

    rows: tuple[int, ...] = ()
    log_share: Tensor = field(default_factory=lambda: torch.zeros((0, 0), dtype=torch.float64))

    def mean(self, weights: Tensor, concepts: Sequence[int]) -> Tensor:
        """Over layers, weighted, float64 [concepts]; 0 where no layer that reads text counts.

        Args:
            weights: float64, one for each of the changed layers.
            concepts: the wanted ones.
        """
        own = weights[list(self.rows)]
        if not bool(own.sum() > 0):
            return torch.zeros(len(concepts), dtype=torch.float64)
        return (self.log_share[:, list(concepts)] * own.unsqueeze(1)).sum(0) / own.sum()


def name_shares(
    spans: Mapping[ModuleRef, NameSpan],
    refs: Sequence[ModuleRef],
    factors: Sequence[Sequence[LowRank]],
) -> NameShares:
    """The shares of adapters that are active together.

    Args:
        spans: of the layers that read text.
        refs: the changed layers.
        factors: of each layer, the change by each adapter.
    """
    rows = tuple(row for row, ref in enumerate(refs) if ref in spans)
    if not rows:
        return NameShares()
    found = [_log_share(spans[refs[row]], factors[row]) for row in rows]
    return NameShares(rows, torch.stack(found).cpu())


def _log_share(span: NameSpan, changes: Sequence[LowRank]) -> Tensor:
    """Half the logarithm of the shares in one layer, float64 [concepts]."""
    down = torch.cat([one.down.double() for one in changes])
    up = torch.cat([one.up.double() * one.scale for one in changes], dim=1)
    # a share knows no strength, so neither very large nor very small weights overflow
    down, up = (each / each.abs().amax().clamp_min(1e-300) for each in (down, up))
    # not by products of factors with themselves: ranks that cancel each other would be squared,
    # and drown the rest
    _, narrow_up = torch.linalg.qr(up, mode="r")
    _, narrow_down = torch.linalg.qr(down.mT, mode="r")
    rows = span.rows.double()
    along, across = (down.mT, narrow_up) if span.side == "in" else (up, narrow_down)
    moved = (rows @ along) @ across.mT
    energy, total = moved.square().sum((1, 2)), (narrow_up @ narrow_down.mT).square().sum()
    share = torch.where(total > 0, energy / total.clamp_min(1e-300), torch.ones_like(energy))
    # rounded, so that the size of a product, which is that of the library, hardly changes a bit
    return (share.clamp(_LEAST, 1.0).log() / 2).float().double()
