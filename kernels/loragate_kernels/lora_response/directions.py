"""Directions that adapters are compared with, packed once per base model.

A layer with directions of ranks q_1, q_2, ... keeps them as two matrices whose rows are read one
after the other, so that a comparison streams through memory:

    left   [q_1 + q_2 + ..., d_out]   the transposes of P_1, P_2, ... one below the other
    right  [q_1 + q_2 + ..., d_in]    Q_1, Q_2, ... one below the other

A dense direction G is the pair (identity, G): its rows go to `right`, and no `left` is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from loragate_kernels.lora_response.adapters import check_matrix

Direction = Tensor | tuple[Tensor, Tensor]
"""G [d_out, d_in], or (P [d_out, q], Q [q, d_in]) for G = P Q; q may be 0, then G is zero."""


@dataclass(frozen=True, eq=False)
class DirectionBlock:
    """Directions of one kind, packed.

    Attributes:
        left: [rows, d_out], contiguous; None for dense directions.
        right: [rows, d_in], contiguous, of the same type.
        lengths: rows of each direction: its rank, or d_out if it is dense.
        slots: number of each direction in its layer.
    """

    left: Tensor | None
    right: Tensor
    lengths: tuple[int, ...]
    slots: tuple[int, ...]

    @cached_property
    def length_tensor(self) -> Tensor:
        """`lengths` as int64, beside the rows; made once, for it is asked for in every call."""
        return torch.tensor(self.lengths, device=self.right.device)


@dataclass(frozen=True, eq=False)
class LayerDirections:
    """The directions of one layer; made by `pack` or `low_rank`.

    Attributes:
        d_out: rows of every direction.
        d_in: columns of every direction.
        blocks: the low-rank directions and the dense ones, each if there are any.
    """

    d_out: int
    d_in: int
    blocks: tuple[DirectionBlock, ...]

    @property
    def count(self) -> int:
        """Number of directions."""
        return sum(len(block.slots) for block in self.blocks)

    @property
    def device(self) -> torch.device:
        """Where the directions lie."""
        return self.blocks[0].right.device

    @property
    def dtype(self) -> torch.dtype:
        """What the directions are kept in."""
        return self.blocks[0].right.dtype

    @property
    def nbytes(self) -> int:
        """Bytes that one call of `inner_products` reads."""
        tensors = [side for block in self.blocks for side in (block.left, block.right)]
        return sum(side.numel() * side.element_size() for side in tensors if side is not None)

    @classmethod
    def pack(
        cls,
        directions: Sequence[Direction],
        *,
        dtype: torch.dtype | None = None,
        name: str = "directions",
    ) -> LayerDirections:
        """Copies directions into stacked matrices.

        Args:
            directions: dense and low-rank ones in any mixture, in float32, bfloat16 or float16.
            dtype: type to keep them in. Without one they must agree, and keep their own;
                bfloat16 halves the memory and the time that reading takes.
            name: what messages call the list.

        Raises:
            ValueError: the list is empty, or a direction is malformed; the message names it.
        """
        if len(directions) == 0:
            raise ValueError(f"{name}: the list is empty; at least one direction is needed")
        d_out, d_in = _shape(name, 0, directions[0])
        for index, direction in enumerate(directions):
            if (shape := _shape(name, index, direction)) != (d_out, d_in):
                raise ValueError(
                    f"{name}: direction {index} is [d_out, d_in] = {list(shape)}, "
                    f"direction 0 is {[d_out, d_in]}"
                )
        _check_alike(name, directions, dtype)
        low = [index for index, each in enumerate(directions) if isinstance(each, tuple)]
        dense = [index for index, each in enumerate(directions) if isinstance(each, Tensor)]
        blocks = []
        if low:
            pairs = [directions[index] for index in low]
            left = _packed([up.t() for up, _ in pairs], dtype)
            right = _packed([down for _, down in pairs], dtype)
            lengths = tuple(down.shape[0] for _, down in pairs)
            blocks.append(DirectionBlock(left, right, lengths, tuple(low)))
        if dense:
            right = _packed([each for each in directions if isinstance(each, Tensor)], dtype)
            blocks.append(DirectionBlock(None, right, (d_out,) * len(dense), tuple(dense)))
        return cls(d_out, d_in, tuple(blocks))

    @classmethod
    def low_rank(cls, left: Tensor, right: Tensor, lengths: Sequence[int]) -> LayerDirections:
        """Takes low-rank directions that are already stacked, without copying.

        Args:
            left: [sum of lengths, d_out], the transposed P one below the other, contiguous.
            right: [sum of lengths, d_in], the Q one below the other, contiguous, same type.
            lengths: rank of each direction.

        Raises:
            ValueError: the matrices do not fit each other or the lengths.
        """
        if len(lengths) == 0:
            raise ValueError("lengths is empty; at least one direction is needed")
        for side, tensor in (("left", left), ("right", right)):
            check_matrix(side, tensor)
            if not tensor.is_contiguous():
                raise ValueError(f"{side} must be contiguous, its strides are {tensor.stride()}")
            if len(tensor) != sum(lengths) or min(lengths) < 0:
                raise ValueError(
                    f"{side} has {len(tensor)} rows, the lengths sum to {sum(lengths)}"
                )
        if left.dtype != right.dtype or left.device != right.device:
            raise ValueError(
                f"left is {left.dtype} on '{left.device}', right {right.dtype} on '{right.device}'"
            )
        block = DirectionBlock(
            left.detach(), right.detach(), tuple(lengths), tuple(range(len(lengths)))
        )
        return cls(left.shape[1], right.shape[1], (block,))


@dataclass(frozen=True, eq=False)
class Directions:
    """The directions of all layers, the same number in each, on one device.

    Build it once per base model, with `pack` or layer by layer, and use it for every call.

    Attributes:
        layers: one entry per layer, in the order in which adapters are given.
    """

    layers: tuple[LayerDirections, ...]

    def __post_init__(self) -> None:
        if len(self.layers) == 0:
            raise ValueError("directions have no layers; at least one is needed")
        first = self.layers[0]
        for number, layer in enumerate(self.layers):
            if layer.count != first.count:
                raise ValueError(
                    f"layer {number} has {layer.count} directions, layer 0 has {first.count}"
                )
            if layer.device != first.device:
                raise ValueError(
                    f"directions of layer {number} are on device '{layer.device}', those of "
                    f"layer 0 on '{first.device}'"
                )

    @classmethod
    def pack(
        cls, layers: Iterable[Sequence[Direction]], *, dtype: torch.dtype | None = None
    ) -> Directions:
        """Packs the directions of every layer.

        Args:
            layers: directions by layer. An iterator is drawn from one layer at a time, so that
                no more than one layer has to exist twice.
            dtype: as in `LayerDirections.pack`.

        Raises:
            ValueError: a layer or direction is malformed; the message names both.
        """
        return cls(
            tuple(
                LayerDirections.pack(layer, dtype=dtype, name=f"layer {number}")
                for number, layer in enumerate(layers)
            )
        )

    @property
    def count(self) -> int:
        """Number of directions in each layer."""
        return self.layers[0].count

    @property
    def device(self) -> torch.device:
        """Where the directions lie."""
        return self.layers[0].device

    @property
    def nbytes(self) -> int:
        """Bytes that one call of `inner_products` reads."""
        return sum(layer.nbytes for layer in self.layers)


def _shape(name: str, index: int, direction: Direction) -> tuple[int, int]:
    name = f"{name}: direction {index}"
    if isinstance(direction, Tensor):
        check_matrix(name, direction)
        return direction.shape[0], direction.shape[1]
    up, down = direction
    check_matrix(f"{name}: P", up)
    check_matrix(f"{name}: Q", down)
    if up.shape[1] != down.shape[0]:
        raise ValueError(
            f"{name}: ranks differ, P [d_out, q] is {tuple(up.shape)}, Q {tuple(down.shape)}"
        )
    return up.shape[0], down.shape[1]


def _check_alike(name: str, directions: Sequence[Direction], dtype: torch.dtype | None) -> None:
    if dtype is not None:
        check_matrix(f"{name}: dtype", torch.empty(0, 0, dtype=dtype))
    sides = [each if isinstance(each, tuple) else (each,) for each in directions]
    first = sides[0][0]
    for index, tensors in enumerate(sides):
        for tensor in tensors:
            if tensor.device != first.device:
                raise ValueError(
                    f"{name}: direction {index} is on device '{tensor.device}', direction 0 on "
                    f"'{first.device}'"
                )
            if dtype is None and tensor.dtype != first.dtype:
                raise ValueError(
                    f"{name}: direction {index} is {tensor.dtype}, direction 0 {first.dtype}; "
                    "say which dtype to pack them in"
                )


def _packed(blocks: Sequence[Tensor], dtype: torch.dtype | None) -> Tensor:
    kept = blocks[0].dtype if dtype is None else dtype
    return torch.cat([block.detach().to(kept) for block in blocks]).contiguous()
