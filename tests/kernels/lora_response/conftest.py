"""The plain formula in float64, with every delta formed, and how far one may be from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from loragate_kernels.lora_response import Directions, InnerProducts, LayerDirections, LowRank

Layers = Sequence[Sequence[LowRank]]

Direction = tuple[Tensor, Tensor]
"""(P [d_out, q], Q [q, d_in]) for G = P Q."""

RELATIVE = 5e-6
"""Of inner products, relative to the norms of what is multiplied."""


def _assert_products(
    result: InnerProducts, layers: Layers, directions: Sequence[Sequence[Direction]]
) -> None:
    assert result.values.shape == (len(layers), len(layers[0]), len(directions[0]))
    assert result.values.dtype == torch.float64
    assert not result.nonfinite.any()
    for number, (adapters, known) in enumerate(zip(layers, directions, strict=True)):
        for index, adapter in enumerate(adapters):
            delta = adapter.scale * (adapter.up.double() @ adapter.down.double())
            for slot, (left, right) in enumerate(known):
                direction = left.double() @ right.double()
                error = result.values[number, index, slot] - (delta * direction).sum()
                assert abs(float(error)) <= RELATIVE * float(delta.norm() * direction.norm())


def _stacked(*directions: Sequence[Direction]) -> Directions:
    layers = []
    for known in directions:
        left = torch.cat([up.t() for up, _ in known]).contiguous()
        right = torch.cat([down for _, down in known])
        layers.append(LayerDirections.low_rank(left, right, [len(down) for _, down in known]))
    return Directions(tuple(layers))


@pytest.fixture(scope="session")
def assert_products() -> Callable[..., None]:
    """Compares every inner product of a result with the formula."""
    return _assert_products


@pytest.fixture(scope="session")
def stacked() -> Callable[..., Directions]:
    """Directions of each layer as operations take them."""
    return _stacked


@pytest.fixture(scope="session")
def make_layer() -> Callable[..., list[LowRank]]:
    """Adapters of one layer, one for each rank, all of them different."""

    def make(
        *ranks: int,
        d_out: int = 24,
        d_in: int = 40,
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
    ) -> list[LowRank]:
        made = []
        for index, rank in enumerate(ranks):
            generator = torch.Generator().manual_seed(1000 * seed + index)
            down = torch.randn(rank, d_in, generator=generator).to(dtype)
            up = torch.randn(d_out, rank, generator=generator).to(dtype)
            made.append(LowRank(down, up, scale=0.5 - 0.75 * index))
        return made

    return make


@pytest.fixture(scope="session")
def make_directions() -> Callable[..., list[Direction]]:
    """Directions of one layer, one of each rank."""

    def make(
        *ranks: int,
        d_out: int = 24,
        d_in: int = 40,
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
    ) -> list[Direction]:
        generator = torch.Generator().manual_seed(99 + seed)

        def normal(rows: int, columns: int) -> Tensor:
            return torch.randn(rows, columns, generator=generator).to(dtype)

        return [(normal(d_out, rank), normal(rank, d_in)) for rank in ranks]

    return make
