"""Pointer tables: how one launch reads many tensors of many shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from loragate_kernels._device import Numbers, sent
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
        packed: int64 on the CPU: `segments` and then `chunks`. Segments are pairs of numbers, so
            wherever the whole begins at a multiple of 16 bytes, both parts do.
        segment_count: number of (pair, row).
        launches: which chunks which variant has to read.
    """

    packed: Tensor
    segment_count: int
    launches: tuple[Launch, ...]

    @property
    def chunks(self) -> Tensor:
        """Int64 [3, chunk count]: address in base, address in adapted, elements."""
        return self._chunks_in(self.packed)

    @property
    def segments(self) -> Tensor:
        """Int64 [2, segment count]: first chunk and number of chunks, in the order of the pairs."""
        return self._segments_in(self.packed)

    def on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Chunks and segments on `device`, where they arrive together."""
        packed = sent(self.packed, device)
        return self._chunks_in(packed), self._segments_in(packed)

    def _segments_in(self, packed: Tensor) -> Tensor:
        return packed[: 2 * self.segment_count].view(2, -1)

    def _chunks_in(self, packed: Tensor) -> Tensor:
        return packed[2 * self.segment_count :].view(3, -1)


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
    members: dict[Variant, list[int]] = {}
    for index, pair in enumerate(pairs):
        if pair.rows and pair.numel:
            members.setdefault((pair.dtype, pair.aligned), []).append(index)
    places = tuple(accumulate((pair.rows for pair in pairs), initial=0))
    groups = {
        variant: _Rows.of([pairs[index] for index in found], [places[index] for index in found])
        for variant, found in members.items()
    }
    counts = {
        variant: -(-rows.numel // chunk_sizes[variant[0]]) for variant, rows in groups.items()
    }
    sizes = [int(each.sum()) for each in counts.values()]
    packed = np.zeros(2 * places[-1] + 3 * sum(sizes), np.int64)
    segments = packed[: 2 * places[-1]].reshape(2, -1)
    chunks = packed[2 * places[-1] :].reshape(3, -1)
    launches = []
    for (dtype, aligned), first, size in zip(
        groups, accumulate(sizes, initial=0), sizes, strict=False
    ):
        rows, per_row = groups[dtype, aligned], counts[dtype, aligned]
        segments[0, rows.place] = first + per_row.cumsum() - per_row
        segments[1, rows.place] = per_row
        rows.cut(chunk_sizes[dtype], dtype.itemsize, per_row, chunks[:, first : first + size])
        launches.append(Launch(dtype, aligned, first, size))
    return PointerTable(torch.from_numpy(packed), places[-1], tuple(launches))


class _Rows(NamedTuple):
    """Rows of many pairs of one type, [rows] each: place among all, addresses, elements."""

    place: Numbers
    base: Numbers
    adapted: Numbers
    numel: Numbers

    @classmethod
    def of(cls, pairs: Sequence[RowPair], places: Sequence[int]) -> _Rows:
        """The rows of `pairs`, the first of which have these places."""
        size = pairs[0].dtype.itemsize
        facts = np.array(
            [
                (place, *pair.addresses, pair.numel, *(size * stride for stride in pair.strides))
                for pair, place in zip(pairs, places, strict=True)
            ],
            np.int64,
        )
        rows = np.array([pair.rows for pair in pairs])
        place, base, adapted, numel, base_step, adapted_step = facts.repeat(rows, axis=0).T
        row = np.arange(len(place)) - (rows.cumsum() - rows).repeat(rows)
        return cls(place + row, base + row * base_step, adapted + row * adapted_step, numel)

    def cut(self, chunk: int, size: int, counts: Numbers, into: Numbers) -> None:
        """Writes the chunks of all rows, `counts` of each, as columns of a table."""
        # as if every row began where the first one does: then all chunks are counted alike
        ahead = (counts.cumsum() - counts) * chunk
        origins = self.base - ahead * size, self.adapted - ahead * size, self.numel + ahead
        start = np.arange(into.shape[1], dtype=np.int64) * chunk
        into[:2] = np.stack(origins[:2]).repeat(counts, axis=1) + start * size
        into[2] = np.minimum(origins[2].repeat(counts) - start, chunk)
