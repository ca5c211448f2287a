"""R from Gram matrices: as long as B is, whatever the columns of B are like."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from loragate_kernels.lora_response.gram import shift, upper_factors


def normal(rank: int, d_out: int = 40, seed: int = 0) -> Tensor:
    """The transpose of a B."""
    return torch.randn(rank, d_out, generator=torch.Generator().manual_seed(seed))


def factors_of(*ups: Tensor, size: int) -> Tensor:
    """R of every B, stacked as the operations stack them, with rows of zeros at the end."""
    ranks = [len(up) for up in ups]
    first = [sum(ranks[:index]) for index in range(len(ranks))]
    stacked = torch.cat([*ups, torch.zeros(4, ups[0].shape[1])])
    return upper_factors(stacked, first, ranks, size)


def lengths(factor: Tensor, up: Tensor, seed: int = 9) -> tuple[Tensor, Tensor]:
    """||R y|| and ||B y|| of some y."""
    y = torch.randn(len(up), 50, generator=torch.Generator().manual_seed(seed)).double()
    found = factor.double()[:, : len(up)] @ y
    return found.norm(dim=0), (up.t().double() @ y).norm(dim=0)


@pytest.mark.parametrize("ranks", [(1,), (16,), (3, 16, 1, 7)], ids=str)
def test_lengths_are_kept_and_left_of_the_diagonal_is_nothing(ranks: tuple[int, ...]) -> None:
    ups = [normal(rank, seed=index) for index, rank in enumerate(ranks)]
    made = factors_of(*ups, size=16)
    assert made.shape == (len(ranks), 16, 16)
    assert made.dtype == torch.float32
    for factor, up in zip(made, ups, strict=True):
        found, expected = lengths(factor, up)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=0.0)
        assert torch.equal(factor, factor.triu())
        assert not factor[len(up) :, : len(up)].any()


def test_columns_may_be_zero_equal_or_more_than_their_elements() -> None:
    zero = normal(5)
    zero[2] = 0.0
    nothing = torch.zeros(3, 40)
    equal = normal(1).repeat(6, 1)
    for up in (zero, nothing, equal, normal(16, d_out=3), normal(16, d_out=1)):
        [factor] = factors_of(up, size=16)
        assert factor.isfinite().all()
        found, expected = lengths(factor, up)
        # relative to what there would be if nothing cancelled
        allowed = 1e-5 * up.double().norm()
        assert bool(((found - expected).abs() <= allowed).all())
    assert not factors_of(nothing, size=16)[0].any()


@pytest.mark.parametrize("scale", [1e-30, 1e-18, 1e15])
def test_the_scale_of_the_weights_does_not_matter(scale: float) -> None:
    up = normal(7) * scale
    found, expected = lengths(factors_of(up, size=16)[0], up)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0.0)


def test_columns_of_lengths_far_apart_keep_their_digits() -> None:
    up = normal(6) * torch.logspace(-12, 12, 6).unsqueeze(1)
    [factor] = factors_of(up, size=16)
    for column in range(6):
        expected = float(up[column].double().norm())
        assert float(factor[:, column].double().norm()) == pytest.approx(expected, rel=1e-6)


def test_nearly_parallel_columns_cost_what_the_shift_says() -> None:
    up = normal(8)
    up[1:] = up[0] + 1e-3 * up[1:]
    [factor] = factors_of(up, size=16)
    y = torch.linspace(-1.0, 1.0, 8).double()  # of sum zero: what the columns share cancels
    found = (factor.double()[:, :8] @ y).square().sum()
    exact = (up.t().double() @ y).square().sum()
    whole = (up.double().square().sum(dim=1) * y.square()).sum()
    rounding = 2 * 2**-24 * math.sqrt(8) * float(whole.sqrt() * exact.sqrt())
    assert exact < 1e-5 * whole
    assert abs(float(found - exact)) <= shift(16, 40) * float(whole) + rounding


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_spoil_their_own_adapter_alone(value: float) -> None:
    ups = [normal(rank, seed=rank) for rank in (3, 5, 4)]
    clean = factors_of(*ups, size=16)
    ups[1][0, 0] = value
    spoilt = factors_of(*ups, size=16)
    assert torch.equal(spoilt[::2], clean[::2])


@pytest.mark.parametrize(("size", "d_out"), [(16, 1), (128, 20480), (1024, 20480)])
def test_the_shift_is_far_below_what_float32_shows(size: int, d_out: int) -> None:
    assert 0.0 < shift(size, d_out) < 5e-9
