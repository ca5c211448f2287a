"""The plain formulas in float64, with every delta formed, and how far one may be from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from loragate_kernels.lora_response import Direction, InnerProducts, LowRank, ResponseEnergy

Layers = Sequence[Sequence[LowRank]]

RELATIVE = 5e-6
"""Of energies, and of inner products relative to the norms of what is multiplied."""


def delta(adapter: LowRank) -> Tensor:
    """s B A in float64, [d_out, d_in]."""
    return adapter.scale * (adapter.up.double() @ adapter.down.double())


def _dense(direction: Direction) -> Tensor:
    if isinstance(direction, Tensor):
        return direction.double()
    return direction[0].double() @ direction[1].double()


def _assert_energies(result: ResponseEnergy, layers: Layers, inputs: Sequence[Tensor]) -> None:
    assert result.energy.shape == (len(layers), len(layers[0]))
    assert result.energy.dtype == torch.float64
    assert not result.nonfinite.any()
    for number, (adapters, x) in enumerate(zip(layers, inputs, strict=True)):
        for index, adapter in enumerate(adapters):
            expected = (delta(adapter) @ x.double()).square().sum(dim=0)
            found = result.energy[number, index]
            torch.testing.assert_close(found, expected.sum(), rtol=RELATIVE, atol=0.0)
            assert found >= 0
            if result.per_token is not None:
                tokens = result.per_token[number]
                assert tokens.shape == (len(adapters), x.shape[1])
                torch.testing.assert_close(tokens[index], expected, rtol=RELATIVE, atol=0.0)


def _assert_products(
    result: InnerProducts, layers: Layers, directions: Sequence[Sequence[Direction]]
) -> None:
    expected = torch.zeros(len(layers), len(layers[0]), len(directions[0]), dtype=torch.float64)
    allowed = torch.zeros_like(expected)
    for number, (adapters, packed) in enumerate(zip(layers, directions, strict=True)):
        for index, adapter in enumerate(adapters):
            for slot, direction in enumerate(packed):
                d, g = delta(adapter), _dense(direction)
                expected[number, index, slot] = (d * g).sum()
                allowed[number, index, slot] = RELATIVE * d.norm() * g.norm()
    if result.values.dim() == 2:
        expected, allowed = expected.sum(0), allowed.sum(0)
    assert result.values.shape == expected.shape
    assert result.values.dtype == torch.float64
    assert not result.nonfinite.any()
    assert bool(((result.values - expected).abs() <= allowed).all())


@pytest.fixture(scope="session")
def assert_energies() -> Callable[..., None]:
    """Compares every energy of a result, and of every token if there, with the formula."""
    return _assert_energies


@pytest.fixture(scope="session")
def assert_products() -> Callable[..., None]:
    """Compares every inner product of a result with the formula."""
    return _assert_products


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
def make_inputs() -> Callable[..., Tensor]:
    """X [d_in, tokens]."""

    def make(
        tokens: int, d_in: int = 40, dtype: torch.dtype = torch.float32, seed: int = 0
    ) -> Tensor:
        generator = torch.Generator().manual_seed(7 + seed)
        return torch.randn(d_in, tokens, generator=generator).to(dtype)

    return make


@pytest.fixture(scope="session")
def make_directions() -> Callable[..., list[Direction]]:
    """Directions of one layer: one of each rank, dense where the rank is None."""

    def make(
        *ranks: int | None,
        d_out: int = 24,
        d_in: int = 40,
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
    ) -> list[Direction]:
        generator = torch.Generator().manual_seed(99 + seed)

        def normal(rows: int, columns: int) -> Tensor:
            return torch.randn(rows, columns, generator=generator).to(dtype)

        return [
            normal(d_out, d_in) if rank is None else (normal(d_out, rank), normal(rank, d_in))
            for rank in ranks
        ]

    return make
