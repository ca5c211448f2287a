"""Low-rank updates: what they are, which are refused, and how those of a layer are stacked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from loragate_kernels._device import sent
from loragate_kernels._rows import SUPPORTED_DTYPES

RANK_STEP = 4
"""Ranks in a stack are filled up to multiples of this: 16 bytes of float32."""

STACK_STEP = 16
"""A stack is filled up to a multiple of this. Libraries tend to sum narrower products by other
code, and then a single adapter differs in its last bits from the same one among many."""


@dataclass(frozen=True, eq=False)
class LowRank:
    """The update scale * up @ down of one layer by one adapter.

    Attributes:
        down: A, [rank, d_in], float32, bfloat16 or float16. Rank 0 is an update of exactly zero.
        up: B, [d_out, rank], the same types.
        scale: s; for LoRA alpha / rank, or alpha / sqrt(rank).
    """

    down: Tensor
    up: Tensor
    scale: float = 1.0

    @property
    def rank(self) -> int:
        """Rows of `down` and columns of `up`."""
        return self.down.shape[0]


Layers = Sequence[Sequence[LowRank]]
"""Adapters by layer: [layer][adapter], the same adapters in the same order in every layer."""


@dataclass(frozen=True, eq=False)
class Stack:
    """The adapters of one layer, one below the other.

    Attributes:
        down: [rows, d_in] in float32 (bfloat16 if that was asked for and all adapters are);
            rows that belong to no adapter are zero.
        up: the transposes of the B, [rows, d_out], the same.
        ranks: of each adapter.
        first: first row of each adapter.
        faults: float32 [rows], 0 where both rows are numbers, else NaN; see `nonfinite`.
    """

    down: Tensor
    up: Tensor
    ranks: tuple[int, ...]
    first: tuple[int, ...]
    faults: Tensor

    def rows_of(self, adapter: int) -> slice:
        """The rows of `down` and `up` that belong to adapter number `adapter`."""
        return slice(self.first[adapter], self.first[adapter] + self.ranks[adapter])


def check_layers(layers: Layers) -> torch.device:
    """Checks every adapter of every layer.

    Returns:
        The device they share.

    Raises:
        ValueError: something is malformed; the message names layer and adapter.
    """
    if len(layers) == 0:
        raise ValueError("layers is empty; at least one layer is needed")
    for number, adapters in enumerate(layers):
        if len(adapters) == 0:
            raise ValueError(f"layer {number} has no adapters; at least one is needed")
        if len(adapters) != len(layers[0]):
            raise ValueError(
                f"layer {number} has {len(adapters)} adapters, layer 0 has {len(layers[0])}; "
                "give an adapter that leaves a layer alone rank 0 there"
            )
    device = layers[0][0].down.device
    for number, adapters in enumerate(layers):
        for index, adapter in enumerate(adapters):
            _check_adapter(f"layer {number}, adapter {index}", adapter, adapters[0], device)
    return device


def _check_adapter(name: str, adapter: LowRank, first: LowRank, device: torch.device) -> None:
    for side, tensor in (("down", adapter.down), ("up", adapter.up)):
        check_matrix(f"{name}: {side}", tensor)
        if tensor.device != device:
            raise ValueError(
                f"{name}: {side} is on device '{tensor.device}', layer 0, adapter 0 on "
                f"'{device}'; one call works on one device"
            )
    down, up = tuple(adapter.down.shape), tuple(adapter.up.shape)
    if down[0] != up[1]:
        raise ValueError(f"{name}: ranks differ, down [rank, d_in] is {down}, up {up}")
    for side, found, wanted in (
        ("down", down[1], first.down.shape[1]),
        ("up", up[0], first.up.shape[0]),
    ):
        if found != wanted:
            word = "d_in" if side == "down" else "d_out"
            raise ValueError(f"{name}: {word} of {side} is {found}, that of adapter 0 is {wanted}")
    if not math.isfinite(adapter.scale):
        raise ValueError(f"{name}: scale is {adapter.scale}; it must be finite")


def check_matrix(name: str, tensor: Tensor) -> None:
    """Raises a ValueError that begins with `name` unless `tensor` is a matrix we compute with."""
    if tensor.dtype not in SUPPORTED_DTYPES:
        raise ValueError(
            f"{name}: dtype {tensor.dtype} is not supported; use float32, bfloat16 or float16"
        )
    if tensor.layout != torch.strided:
        raise ValueError(f"{name}: only strided tensors are supported, not {tensor.layout}")
    if tensor.dim() != 2:
        raise ValueError(f"{name} must be a matrix, its shape is {tuple(tensor.shape)}")


def stack(adapters: Sequence[LowRank], *, narrow: bool = False) -> Stack:
    """Stacks the adapters of one layer; the weights are copied.

    Args:
        adapters: checked, at least one.
        narrow: keep bfloat16 if all weights are.
    """
    all_narrow = all(a.down.dtype == a.up.dtype == torch.bfloat16 for a in adapters)
    dtype = torch.bfloat16 if narrow and all_narrow else torch.float32
    ranks = tuple(adapter.rank for adapter in adapters)
    ends = tuple(accumulate(-(-rank // RANK_STEP) * RANK_STEP for rank in ranks))
    first = (0, *ends[:-1])
    rest = -(-ends[-1] // STACK_STEP) * STACK_STEP - ends[-1]
    gaps = [end - start - rank for end, start, rank in zip(ends, first, ranks, strict=True)]
    gaps[-1] += rest
    down = _stacked([adapter.down for adapter in adapters], gaps, dtype)
    up = _stacked([adapter.up.t() for adapter in adapters], gaps, dtype)
    return Stack(
        down,
        up,
        ranks,
        first,
        # a row of numbers times zero is zero, unless one of them is not finite
        (down * 0).sum(dim=1, dtype=torch.float32) + (up * 0).sum(dim=1, dtype=torch.float32),
    )


def scales_of(layers: Layers) -> Tensor:
    """Float64 [layers, adapters] on their device, made in one piece."""
    values = [[float(adapter.scale) for adapter in adapters] for adapters in layers]
    return sent(torch.tensor(values, dtype=torch.float64), layers[0][0].down.device)


def nonfinite(faults: Sequence[Tensor], first: Sequence[Sequence[int]]) -> Tensor:
    """Bool [layers, adapters]: any weight is NaN or infinite.

    All layers are looked at together, for each look at one costs more than its rows.

    Args:
        faults: of the stack of each layer.
        first: the same.
    """
    ends = list(accumulate(len(rows) for rows in faults))
    starts = [above + row for above, rows in zip((0, *ends), first, strict=False) for row in rows]
    bad = ~torch.isfinite(torch.cat(list(faults)))
    counts = torch.cat([bad.new_zeros(1, dtype=torch.int64), bad.cumsum(0)])
    bounds = sent(torch.tensor([*starts, ends[-1]]), bad.device)
    return (counts[bounds].diff() > 0).view(len(faults), -1)


def _stacked(blocks: list[Tensor], gaps: list[int], dtype: torch.dtype) -> Tensor:
    """[rows, width]: every block, followed by so many rows of zeros as its gap says."""
    if len({block.dtype for block in blocks}) > 1:
        blocks = [block.to(dtype) for block in blocks]
    zeros = blocks[0].new_zeros((max(gaps), blocks[0].shape[1]))
    parts = []
    for block, gap in zip(blocks, gaps, strict=True):
        parts.append(block)
        if gap:
            parts.append(zeros[:gap])
    return torch.cat(parts).detach().to(dtype).contiguous()
