"""Pointer tables: how one launch reads many tensors of many shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from loragate_kernels._rows import RowPair

Variant = tuple[torch.dtype, bool]
"""What a launch is compiled for: element type, and whether every row starts 16-byte aligned."""


@dataclass(frozen=True)
class Launch:
    """A run of consecutive chunks that one compiled variant works off."""

    dtype: torch.dtype
    aligned: bool
    first_chunk: int
    chunk_count: int


@dataclass(frozen=True, eq=False)
class PointerTable:
    """Chunks of all rows of a list of pairs, built on the host.

    A row belongs to as many chunks as it needs; each chunk belongs to one row. The chunks of a
    row follow each other, and depend on its length alone, so neither the other pairs of the list
    nor their order change how a row is summed.

    Attributes:
        chunks: int64 [3, chunk count] on the CPU: address in base, address in adapted, elements.
        segments: int64 [2, segment count] on the CPU: first chunk and number of chunks of each
            (pair, row), in the order of the pairs.
        launches: which chunks which variant has to read.
    """

    chunks: Tensor
    segments: Tensor
    launches: tuple[Launch, ...]


def build_pointer_table(
    pairs: Sequence[RowPair], chunk_sizes: Mapping[torch.dtype, int]
) -> PointerTable:
    """Cuts every row of `pairs` into chunks; the last of a row may be shorter.

    All arithmetic is int64: rows and lists may hold more than 2^31 elements.

    The table holds bare addresses: the caller keeps the tensors alive until the launches that
    read it are enqueued, and never reuses a table for other tensors.

    Args:
        pairs: operands, all on one device.
        chunk_sizes: elements per chunk by element type; multiples of 16, so that chunks keep a
            row's alignment.
    """
    groups: dict[Variant, list[int]] = {}
    for index, pair in enumerate(pairs):
        if pair.base.numel():
            groups.setdefault((pair.base.dtype, pair.aligned), []).append(index)
    blocks: list[Tensor] = []
    segments = [torch.zeros(2, pair.rows, dtype=torch.int64) for pair in pairs]
    launches: list[Launch] = []
    total = 0
    for (dtype, aligned), members in groups.items():
        first = total
        for index in members:
            block, per_row = _chunks_of(pairs[index], chunk_sizes[dtype])
            rows = pairs[index].rows
            segments[index][0] = torch.arange(rows) * per_row + total
            segments[index][1] = per_row
            blocks.append(block)
            total += rows * per_row
        launches.append(Launch(dtype, aligned, first, total - first))
    chunks = torch.cat(blocks, dim=1) if blocks else torch.empty(3, 0, dtype=torch.int64)
    return PointerTable(chunks, torch.cat(segments, dim=1), tuple(launches))


def _chunks_of(pair: RowPair, chunk: int) -> tuple[Tensor, int]:
    """The int64 [3, rows * chunks per row] table of one pair, and its chunks per row."""
    starts = torch.arange(0, pair.numel, chunk)
    row = torch.arange(pair.rows).unsqueeze(1)
    size = pair.base.element_size()
    addresses = [
        view.data_ptr() + (row * view.stride(0) + starts) * size
        for view in (pair.base, pair.adapted)
    ]
    numel = (pair.numel - starts).clamp(max=chunk).expand(pair.rows, -1)
    return torch.stack([*addresses, numel]).flatten(1), len(starts)
