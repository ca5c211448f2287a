"""Directions that adapters are compared with, stacked once per base model.

A layer with directions P_1 Q_1, P_2 Q_2, ... of ranks q_1, q_2, ... keeps them as two matrices
whose rows are read one after the other, so that a comparison streams through memory:

    left   [q_1 + q_2 + ..., d_out]   the transposes of P_1, P_2, ... one below the other
    right  [q_1 + q_2 + ..., d_in]    Q_1, Q_2, ... one below the other
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from loragate_kernels.lora_response.adapters import check_matrix


@dataclass(frozen=True, eq=False)
class LayerDirections:
    """The directions of one layer; made by `low_rank`.

    Attributes:
        left: [rows, d_out], contiguous.
        right: [rows, d_in], contiguous, of the same type.
        lengths: rows of each direction: its rank.
    """

    left: Tensor
    right: Tensor
    lengths: tuple[int, ...]

    @property
    def d_out(self) -> int:
        """Rows of every direction."""
        return self.left.shape[1]

    @property
    def d_in(self) -> int:
        """Columns of every direction."""
        return self.right.shape[1]

    @property
    def count(self) -> int:
        """Number of directions."""
        return len(self.lengths)

    @property
    def device(self) -> torch.device:
        """Where the directions lie."""
        return self.right.device

    @property
    def dtype(self) -> torch.dtype:
        """What the directions are kept in."""
        return self.right.dtype

    @property
    def nbytes(self) -> int:
        """Bytes that one call of `inner_products` reads."""
        return self.left.nbytes + self.right.nbytes

    @cached_property
    def length_tensor(self) -> Tensor:
        """`lengths` as int64, beside the rows; made once, for it is asked for in every call."""
        return torch.tensor(self.lengths, device=self.right.device)

    @classmethod
    def low_rank(cls, left: Tensor, right: Tensor, lengths: Sequence[int]) -> LayerDirections:
        """Takes directions that are already stacked, without copying.

        Args:
            left: [sum of lengths, d_out], the transposed P one below the other, contiguous.
            right: [sum of lengths, d_in], the Q one below the other, contiguous, same type.
            lengths: rank of each direction; a rank of 0 is a direction of zero.

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
        return cls(left.detach(), right.detach(), tuple(lengths))


@dataclass(frozen=True, eq=False)
class Directions:
    """The directions of all layers, the same number in each, on one device.

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

    @property
    def device(self) -> torch.device:
        """Where the directions lie."""
        return self.layers[0].device
