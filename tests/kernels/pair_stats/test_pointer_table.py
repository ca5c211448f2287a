"""Addresses of operands that no memory could hold: tensors without storage stand in for them."""

from __future__ import annotations

import torch

from loragate_kernels._pointer_table import build_pointer_table
from loragate_kernels._rows import as_row_pairs
from loragate_kernels.pair_stats.config import CONFIG_DTYPES

CHUNK = 1 << 24
SIZES = dict.fromkeys(CONFIG_DTYPES, CHUNK)


def test_rows_of_more_than_two_to_the_31_elements_are_addressed_to_their_end() -> None:
    numel = (1 << 31) + 5
    huge = torch.empty(3, numel, dtype=torch.float16, device="meta")
    [pair] = as_row_pairs([(huge, huge)])
    table = build_pointer_table([pair], SIZES)
    per_row = -(-numel // CHUNK)
    assert table.segments.tolist() == [[0, per_row, 2 * per_row], [per_row] * 3]
    base, adapted, counts = table.chunks.view(3, 3, per_row)
    assert counts.sum(1).tolist() == [numel] * 3
    assert counts[:, -1].tolist() == [5] * 3
    # nothing is at address 0, so addresses are offsets in bytes here
    expected = torch.arange(3)[:, None] * numel * 2 + torch.arange(per_row) * CHUNK * 2
    assert torch.equal(base, expected)
    assert torch.equal(adapted, expected)
    assert int(base.max()) > 1 << 33


def test_rows_that_lie_more_than_two_to_the_31_elements_apart_are_found() -> None:
    apart = torch.empty(1, dtype=torch.float32, device="meta").as_strided((2, 4), (1 << 40, 1))
    [pair] = as_row_pairs([(apart, apart)])
    table = build_pointer_table([pair], SIZES)
    assert table.chunks.tolist() == [[0, 1 << 42], [0, 1 << 42], [4, 4]]


def test_each_type_is_cut_by_its_own_chunk_size() -> None:
    pairs = [
        (torch.zeros(1, 100, dtype=dtype), torch.zeros(1, 100, dtype=dtype))
        for dtype in (torch.float32, torch.float16)
    ]
    table = build_pointer_table(
        as_row_pairs(pairs), {torch.float32: 32, torch.float16: 64, torch.bfloat16: 16}
    )
    assert table.chunks[2].tolist() == [32, 32, 32, 4, 64, 36]
    assert [launch.chunk_count for launch in table.launches] == [4, 2]
