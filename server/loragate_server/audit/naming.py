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

_AT_ONCE = 1 << 20
"""Numbers of names' directions and of changes that are multiplied in one go, in doubles: layers of
one shape share what a call costs, and those of a large model go one by one."""

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
    alike: dict[tuple[object, ...], list[int]] = {}
    for place, row in enumerate(rows):
        span, changes = spans[refs[row]], factors[row]
        size = sum(one.rank for one in changes), changes[0].up.shape[0], changes[0].down.shape[1]
        alike.setdefault((span.side, *size), []).append(place)
    found = torch.zeros((len(rows), len(spans[refs[rows[0]]].rows)), dtype=torch.float64)
    for places in alike.values():
        one = rows[places[0]]
        numbers = spans[refs[one]].rows.numel() + sum(
            each.up.numel() + each.down.numel() for each in factors[one]
        )
        most = max(1, _AT_ONCE // numbers)
        for start in range(0, len(places), most):
            some = places[start : start + most]
            found[some] = _log_shares(
                [spans[refs[rows[place]]] for place in some],
                [factors[rows[place]] for place in some],
            ).cpu()
    return NameShares(rows, found)


def _log_shares(spans: Sequence[NameSpan], changes: Sequence[Sequence[LowRank]]) -> Tensor:
    """Half the logarithm of the shares in layers of one shape, float64 [layers, concepts]."""
    down = torch.stack([torch.cat([one.down for one in layer]) for layer in changes]).double()
    up = torch.stack(
        [torch.cat([one.up.double() * one.scale for one in layer], dim=1) for layer in changes]
    )
    # a share knows no strength, so neither very large nor very small weights overflow
    down, up = (each / each.abs().amax((1, 2), True).clamp_min(1e-300) for each in (down, up))
    # not by products of factors with themselves: ranks that cancel each other would be squared,
    # and drown the rest
    _, narrow_up = torch.linalg.qr(up, mode="r")
    _, narrow_down = torch.linalg.qr(down.mT, mode="r")
    rows = torch.stack([span.rows for span in spans]).double()
    reads = spans[0].side == "in"
    along, across = (down.mT, narrow_up) if reads else (up, narrow_down)
    moved = (rows.flatten(1, 2) @ along @ across.mT).unflatten(1, rows.shape[1:3])
    energy = moved.square().sum((2, 3))
    total = (narrow_up @ narrow_down.mT).square().sum((1, 2)).unsqueeze(1)
    share = torch.where(total > 0, energy / total.clamp_min(1e-300), torch.ones_like(energy))
    # rounded, so that the size of a product, which is that of the library, hardly changes a bit
    return (share.clamp(_LEAST, 1.0).log() / 2).float().double()
