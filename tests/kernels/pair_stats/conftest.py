"""The plain formula in float64, and how far an implementation may be from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from loragate_kernels import PairStats

Pair = tuple[Tensor, Tensor]

RELATIVE = 5e-6
"""Of a sum of squares: products are float32, at most one rounding each, sums are wider."""


def _assert_matches(stats: PairStats, pairs: Sequence[Pair]) -> None:
    for number, (base, adapted) in enumerate(pairs):
        rows = stats.rows_of(number)
        assert rows.stop - rows.start == len(base)
        for row in range(len(base)):
            _assert_row(stats, rows.start + row, base[row], adapted[row])
    assert stats.row_offsets[-1] == len(stats.sum_sq_diff)


def _assert_row(stats: PairStats, segment: int, base: Tensor, adapted: Tensor) -> None:
    a, b = base.double().flatten(), adapted.double().flatten()
    bad = int((~(a.isfinite() & b.isfinite())).sum())
    assert int(stats.nonfinite_count[segment]) == bad
    found = [
        float(value[segment])
        for value in (
            stats.sum_sq_diff,
            stats.sum_sq_base,
            stats.sum_sq_adapted,
            stats.sum_product,
            stats.max_abs_diff,
        )
    ]
    if bad:
        assert all(value != value for value in found)
        return
    dd, aa, bb = (float(each.square().sum()) for each in (a - b, a, b))
    for value, expected in zip(found[:3], (dd, aa, bb), strict=True):
        assert value == pytest.approx(expected, rel=RELATIVE, abs=0.0)
    assert abs(found[3] - float((a * b).sum())) <= RELATIVE * (aa * bb) ** 0.5
    largest = (base.float() - adapted.float()).abs().flatten()
    assert found[4] == (float(largest.max()) if largest.numel() else 0.0)


@pytest.fixture(scope="session")
def assert_matches() -> Callable[[PairStats, Sequence[Pair]], None]:
    """Compares every row of a result with the formula; the maximum and the count exactly."""
    return _assert_matches


@pytest.fixture(scope="session")
def make_pair() -> Callable[..., Pair]:
    """A pair of this shape, the second a little away from the first."""

    def make(
        *shape: int,
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
        scale: float = 1.0,
        change: float = 0.3,
    ) -> Pair:
        generator = torch.Generator().manual_seed(seed)
        base = torch.randn(shape, generator=generator) * scale
        adapted = base + torch.randn(shape, generator=generator) * scale * change
        return base.to(dtype), adapted.to(dtype)

    return make
