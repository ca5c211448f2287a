"""Where the rows of a pair are found, and which configurations are refused."""

from __future__ import annotations

import pytest
import torch

from loragate_kernels import PairStatsConfig, pair_stats


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
