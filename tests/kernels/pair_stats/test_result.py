"""What follows from the sums, also where they are zero, infinite or missing."""

from __future__ import annotations

import math

import pytest
import torch

from loragate_kernels import PairStats, PairStatsConfig, pair_stats

NAN, INF = math.nan, math.inf


def of(base: list[float], adapted: list[float]) -> PairStats:
    return pair_stats([(torch.tensor([base]), torch.tensor([adapted]))], backend="reference")


@pytest.mark.parametrize(
    ("base", "adapted", "change", "cosine", "energy"),
    [
        ([3.0, 4.0], [3.0, 4.0], 0.0, 1.0, 1.0),
        ([3.0, 4.0], [6.0, 8.0], 1.0, 1.0, 4.0),
        ([3.0, 4.0], [-3.0, -4.0], 2.0, -1.0, 1.0),
        ([3.0, 0.0], [0.0, 3.0], math.sqrt(2), 0.0, 1.0),
        ([3.0, 4.0], [0.0, 0.0], 1.0, 0.0, 0.0),
        ([0.0, 0.0], [3.0, 4.0], INF, 0.0, INF),
        ([0.0, 0.0], [0.0, 0.0], 0.0, 1.0, 1.0),
        ([NAN, 1.0], [0.0, 1.0], NAN, NAN, NAN),
    ],
)
def test_the_ratios_of_known_rows(
    base: list[float], adapted: list[float], change: float, cosine: float, energy: float
) -> None:
    stats = of(base, adapted)
    for found, expected in (
        (stats.relative_change(), change),
        (stats.cosine_similarity(), cosine),
        (stats.energy_ratio(), energy),
    ):
        assert float(found) == pytest.approx(expected, nan_ok=True)
    assert bool(stats.usable()) == (not math.isnan(change))


def test_a_cosine_never_leaves_its_range() -> None:
    base = torch.randn(500, 3, generator=torch.Generator().manual_seed(1))
    stats = pair_stats([(base, base * 3), (base, base * -7)], backend="reference")
    assert stats.cosine_similarity().abs().max() <= 1.0
    assert stats.cosine_similarity().abs().min() > 1 - 1e-6


def test_rows_are_found_by_pair() -> None:
    shapes = [(2, 3), (0, 3), (4, 1)]
    pairs = [(torch.zeros(shape), torch.ones(shape)) for shape in shapes]
    stats = pair_stats(pairs, backend="reference")
    assert stats.row_offsets == (0, 2, 2, 6)
    assert stats.sum_sq_diff[stats.rows_of(0)].tolist() == [3.0, 3.0]
    assert stats.sum_sq_diff[stats.rows_of(1)].tolist() == []
    assert stats.sum_sq_diff[stats.rows_of(2)].tolist() == [1.0] * 4
    assert stats.nonfinite_count.dtype == torch.int64
    assert stats.sum_sq_diff.dtype == torch.float64


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block": 100}, "block must be a power of two"),
        ({"block": 8}, "block must be a power of two of at least 16"),
        ({"fold_block": 24}, "fold_block must be a power of two"),
        ({"block": 64, "chunk": 96}, "chunk must be a multiple of block 64"),
        ({"block": 64, "chunk": 32}, "chunk must be a multiple of block 64"),
        ({"chunk": 1 << 25}, "chunk must be at most"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PairStatsConfig(**options)
