"""Adapters and directions of whole models, for `inner_products`."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from benchmarks.kernels.mixes import Projection
from loragate_kernels.lora_response import Directions, LayerDirections, LowRank


def random_adapter(
    d_in: int, d_out: int, rank: int, generator: torch.Generator, dtype: torch.dtype
) -> LowRank:
    """Normal weights, scaled so that outputs are about as large as inputs."""
    device = generator.device
    down = torch.randn(rank, d_in, generator=generator, device=device) / d_in**0.5
    up = torch.randn(d_out, rank, generator=generator, device=device) / max(1, rank) ** 0.5
    return LowRank(down.to(dtype), up.to(dtype), 0.8)


def random_directions(
    projections: Sequence[Projection], count: int, rank: int, dtype: torch.dtype
) -> Directions:
    """`count` directions of `rank` for every projection, each in memory of its own.

    The numbers are pieces of one supply, as drawing gigabytes takes longer than all the rest.
    """
    generator = torch.Generator().manual_seed(9)
    longest = count * rank * max(max(one.d_out, one.d_in) for one in projections)
    supply = torch.randn(longest + (1 << 16), generator=generator).to(dtype)
    layers = []
    for index, one in enumerate(_repeated(projections)):
        sides = []
        for side, width in enumerate((one.d_out, one.d_in)):
            start = 97 * (2 * index + side) % (1 << 16)
            piece = supply[start : start + count * rank * width]
            sides.append(piece.clone().view(count * rank, width))
        layers.append(LayerDirections.low_rank(sides[0], sides[1], [rank] * count))
    return Directions(tuple(layers))


def random_adapters(
    projections: Sequence[Projection], rank: int, dtype: torch.dtype
) -> list[list[LowRank]]:
    """One adapter of `rank` on every projection, as [layer][adapter]."""
    generator = torch.Generator().manual_seed(11)
    return [
        [random_adapter(one.d_in, one.d_out, rank, generator, dtype)]
        for one in _repeated(projections)
    ]


def _repeated(projections: Sequence[Projection]) -> list[Projection]:
    return [one for one in projections for _ in range(one.count)]
