"""Offsets beyond 2^31, in memory that is reserved but never filled."""

from __future__ import annotations

import mmap
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from loragate_kernels import PairStatsConfig
from loragate_kernels._pointer_table import build_pointer_table
from loragate_kernels._rows import as_row_pairs
from loragate_kernels.pair_stats.kernel import pair_stats_fold_kernel, pair_stats_partial_kernel
from loragate_kernels.pair_stats.launch import fold_options, partial_options

pytestmark = pytest.mark.usefixtures("poisoned_memory")

MAP_NORESERVE = 0x4000  # of Linux; Python 3.11 does not name it
BEYOND = (1 << 31) + 11
CONFIG = PairStatsConfig(block=1 << 16, chunk=1 << 24, fold_block=16)


def reserve(*shape: int, dtype: torch.dtype) -> Tensor:
    """Zeros that take no memory until they are written to."""
    size = torch.Size(shape).numel() * dtype.itemsize
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
    memory = mmap.mmap(-1, size, flags=flags)
    return torch.frombuffer(memory, dtype=dtype).view(shape)


def test_a_chunk_number_beyond_two_to_the_31_reads_and_writes_its_own_place(
    make_pair: Callable[..., tuple[Tensor, Tensor]],
) -> None:
    total = BEYOND + 1
    base, adapted = make_pair(1, 50)
    chunks = reserve(3, total, dtype=torch.int64)
    partial = reserve(6, total, dtype=torch.float32)
    chunks[:, BEYOND] = torch.tensor([base.data_ptr(), adapted.data_ptr(), 50])
    options = partial_options(torch.float32, True, CONFIG)
    pair_stats_partial_kernel[(1,)](chunks, partial, BEYOND, total, **options)
    expected = float((base - adapted).double().square().sum())
    assert float(partial[0, BEYOND]) == pytest.approx(expected, rel=5e-6)
    assert float(partial[0, BEYOND % (1 << 31)]) == 0.0

    segments = torch.tensor([[BEYOND], [1]])
    result = torch.empty(6, 1, dtype=torch.float64)
    pair_stats_fold_kernel[(1,)](segments, partial, result, total, 1, **fold_options(CONFIG))
    assert torch.equal(result[:, 0], partial[:, BEYOND].double())


def test_the_end_of_a_row_beyond_two_to_the_31_elements_is_read() -> None:
    base, adapted = (reserve(1, BEYOND, dtype=torch.bfloat16) for _ in range(2))
    base[0, -3:] = torch.tensor([3.0, 4.0, 12.0])
    [pair] = as_row_pairs([(base, adapted)])
    table = build_pointer_table([pair], {torch.bfloat16: CONFIG.chunk})
    last = table.chunks.shape[1] - 1
    assert int(table.chunks[2].sum()) == BEYOND
    partial = torch.empty(6, last + 1)
    options = partial_options(torch.bfloat16, pair.aligned, CONFIG)
    pair_stats_partial_kernel[(1,)](table.chunks, partial, last, last + 1, **options)
    assert partial[:, last].tolist() == [169.0, 169.0, 0.0, 0.0, 12.0, 0.0]
