"""Operands as rows: checks a list of tensor pairs and views each tensor as dense rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

SUPPORTED_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True, eq=False)
class RowPair:
    """Two tensors of one shape, seen as rows of consecutive elements in storage order.

    Storage order may differ from index order (channels_last), but it is the same for both, so
    element k of a base row and element k of the adapted row belong together.

    Attributes:
        tensors: base and adapted as they were given, row dimension first.
        rows: number of rows.
        numel: elements per row.
        strides: elements from the start of a row to that of the next, in base and adapted.
    """

    tensors: tuple[Tensor, Tensor]
    rows: int
    numel: int
    strides: tuple[int, int]

    @cached_property
    def base(self) -> Tensor:
        """Float [rows, numel], last stride 1, any row stride of at least numel."""
        return self._viewed(0)

    @cached_property
    def adapted(self) -> Tensor:
        """The same of the adapted tensor."""
        return self._viewed(1)

    def _viewed(self, side: int) -> Tensor:
        # a view costs as much as all else here, and only some callers want one
        view = self.tensors[side].detach()
        if self.rows == 0 or self.numel == 0:
            return view.new_empty((self.rows, self.numel))
        return view.as_strided((self.rows, self.numel), (self.strides[side], 1))

    @property
    def dtype(self) -> torch.dtype:
        """Element type of both."""
        return self.tensors[0].dtype

    @property
    def device(self) -> torch.device:
        """Where both live."""
        return self.tensors[0].device

    @cached_property
    def addresses(self) -> tuple[int, int]:
        """Where the first rows of base and adapted begin."""
        return self.tensors[0].data_ptr(), self.tensors[1].data_ptr()

    @property
    def aligned(self) -> bool:
        """Whether every row of both tensors starts at a multiple of 16 bytes."""
        size = self.dtype.itemsize if self.rows > 1 else 0
        (base, adapted), (one, other) = self.addresses, self.strides
        return (base | adapted | one * size | other * size) % 16 == 0


def as_row_pairs(pairs: Sequence[tuple[Tensor, Tensor]]) -> list[RowPair]:
    """Checks the operands and views them as rows, without copying.

    Args:
        pairs: (base, adapted), each of shape [rows, ...] in float32, bfloat16 or float16; shapes
            and dtypes may differ from pair to pair. Each row must cover its memory without gaps
            or overlap, in an order of dimensions that both tensors of a pair share.

    Returns:
        One `RowPair` per pair, in order.

    Raises:
        ValueError: the list is empty, or a pair is malformed; the message names the pair and
            what is wrong with it.
    """
    if len(pairs) == 0:
        raise ValueError("pairs is empty; at least one (base, adapted) pair is needed")
    result = [_as_row_pair(index, base, adapted) for index, (base, adapted) in enumerate(pairs)]
    device = result[0].device
    for index, pair in enumerate(result):
        if pair.device != device:
            raise ValueError(
                f"pair {index} is on device '{pair.device}', pair 0 on '{device}'; "
                "one call works on one device"
            )
    return result


def _as_row_pair(index: int, base: Tensor, adapted: Tensor) -> RowPair:
    if base.shape != adapted.shape:
        raise ValueError(
            f"pair {index}: shapes differ, base {tuple(base.shape)}, adapted {tuple(adapted.shape)}"
        )
    if base.dtype != adapted.dtype:
        raise ValueError(f"pair {index}: dtypes differ, base {base.dtype}, adapted {adapted.dtype}")
    if base.device != adapted.device:
        raise ValueError(
            f"pair {index}: devices differ, base '{base.device}', adapted '{adapted.device}'"
        )
    if base.dtype not in SUPPORTED_DTYPES:
        raise ValueError(
            f"pair {index}: dtype {base.dtype} is not supported; use float32, bfloat16 or float16"
        )
    if base.layout != torch.strided or adapted.layout != torch.strided:
        raise ValueError(f"pair {index}: only strided tensors are supported, not {base.layout}")
    if base.dim() == 0:
        raise ValueError(f"pair {index}: a 0-d tensor has no rows; unsqueeze it to [1]")
    rows = base.shape[0]
    if base.is_contiguous() and adapted.is_contiguous():
        numel = base.numel() // rows if rows else 0
        return RowPair((base, adapted), rows, numel, (numel, numel))
    if _row_strides(base) != _row_strides(adapted):
        raise ValueError(
            f"pair {index}: strides differ within a row, base {base.stride()}, adapted "
            f"{adapted.stride()}; bring both to one memory format"
        )
    numel = base[:1].numel()
    strides = _row_stride(index, "base", base), _row_stride(index, "adapted", adapted)
    return RowPair((base, adapted), rows, numel, strides)


def _row_strides(tensor: Tensor) -> list[tuple[int, int]]:
    """(size, stride) of the dimensions inside a row; those of size 1 have no say in the layout."""
    return [(s, t) for s, t in zip(tensor.shape[1:], tensor.stride()[1:], strict=True) if s != 1]


def _row_stride(index: int, side: str, tensor: Tensor) -> int:
    """Elements from row to row of a tensor whose rows are dense, but need not lie together."""
    numel = tensor[:1].numel()
    if tensor.numel() == 0:
        return numel
    expected = 1
    for size, stride in sorted(_row_strides(tensor), key=lambda entry: entry[1]):
        if stride != expected:
            kind = "overlap" if stride < expected else "are not dense"
            raise ValueError(
                f"pair {index}: elements of a row of {side} {kind} in memory, shape "
                f"{tuple(tensor.shape)}, strides {tensor.stride()}; pass a dense tensor"
            )
        expected *= size
    row_stride = tensor.stride(0) if tensor.shape[0] > 1 else numel
    if row_stride < numel:
        raise ValueError(
            f"pair {index}: rows of {side} overlap in memory, shape {tuple(tensor.shape)}, "
            f"strides {tensor.stride()}; the row dimension must be the outermost"
        )
    return row_stride
