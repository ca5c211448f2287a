"""A gradient as two sketches: what is left of it where there is no room for the whole.

G is a sum of outer products, one per token, so G Omega and Psi G are sums as well: they take what
each micro-batch adds, and G is never formed. Omega and Psi are random, the same for all concepts.
Reconstruction by least squares, from one pass over the data: Tropp, Yurtsever, Udell and Cevher,
"Practical sketching algorithms for low-rank matrix approximation" (arXiv 1609.00048), algorithm 7.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv2d_weight

from loragate_server.concepts.building.compress import compress, cut

Layer = nn.Linear | nn.Conv2d


@dataclass(frozen=True)
class Widths:
    """How wide the sketches are.

    Attributes:
        range: of the one that spans the gradient's range, on the longer side.
        other: of the other one; more than the range by two at least.
    """

    range: int
    other: int

    def __post_init__(self) -> None:
        if not 0 < self.range < self.other - 1:
            raise ValueError(
                f"sketches of width {self.range} and {self.other}: the first has to be at least 1 "
                "and the second larger by two or more"
            )


class Sketch:
    """The running sketches of one layer's gradient; the whole where that is no larger.

    Args:
        layer: the layer.
        widths: how wide they are.
        device: where they are held, in float32.
    """

    def __init__(self, layer: Layer, widths: Widths, device: torch.device) -> None:
        self.out, self.wide = shape_of(layer)
        self._layer = layer
        self._widths = widths
        self._whole: Tensor | None = None
        # the wider sketch lies on the shorter side, which saves room
        self._tall = self.out >= self.wide
        columns, rows = widths.range, widths.other
        if not self._tall:
            columns, rows = rows, columns
        if is_whole(layer, widths):
            self._whole = torch.zeros(self.out, self.wide, device=device)
            return
        self._columns = torch.zeros(self.out, columns, device=device)
        self._rows = torch.zeros(rows, self.wide, device=device)

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        if self._whole is not None:
            return self._whole.nbytes
        return self._columns.nbytes + self._rows.nbytes

    def add(self, given: Tensor, pulled: Tensor) -> None:
        """Takes what one call of the layer adds.

        Args:
            given: the layer's input.
            pulled: the gradient of its output, same number of tokens or the layer's own grid.
        """
        if self._whole is not None:
            self._whole += _whole(self._layer, given, pulled).flatten(1)
            return
        omega = _random(self.wide, self._columns.shape[1], given.device, given.dtype)
        psi = _random(self.out, len(self._rows), pulled.device, pulled.dtype)
        if isinstance(self._layer, nn.Linear):
            told, back = given.reshape(-1, self.wide), pulled.reshape(-1, self.out)
            self._columns += back.t() @ (told @ omega)
            self._rows += (back @ psi).t() @ told
        else:
            columns, rows = _of_convolution(self._layer, given, pulled, omega, psi)
            self._columns += columns
            self._rows += rows

    def finish(self, rank: int) -> tuple[Tensor, Tensor, Tensor]:
        """The norm of the gradient, and its unit-norm directions as `compress` gives them.

        The norm of what the sketch does not span is estimated without bias; its share is small.
        """
        if self._whole is not None:
            left, right = compress(self._whole, rank)
            return self._whole.norm(), left, right
        spanning, other = self._columns, self._rows
        mixed = _random(self.out, len(self._rows), spanning.device, torch.float32)
        if not self._tall:
            spanning, other = self._rows.t(), self._columns.t()
            mixed = _random(self.wide, self._columns.shape[1], spanning.device, torch.float32)
        basis, small, norm = _fitted(spanning, other, mixed, self._widths)
        if not norm > 0:  # of zero, or not finite: whoever asks looks at the norm
            return norm, norm.new_zeros(rank, self.out), norm.new_zeros(rank, self.wide)
        left, right = cut(basis, small / norm, rank)
        return (norm, left, right) if self._tall else (norm, right, left)


def shape_of(layer: Layer) -> tuple[int, int]:
    """Height and width of a layer's gradient as a matrix: [out, in * kh * kw]."""
    return len(layer.weight), layer.weight[0].numel()


def is_whole(layer: Layer, widths: Widths) -> bool:
    """Whether a layer's gradient is held in whole: sketches would be larger, or do not fit it."""
    out, wide = shape_of(layer)
    columns, rows = widths.range, widths.other
    if out < wide:
        columns, rows = rows, columns
    small = out * wide <= out * columns + rows * wide
    plain = isinstance(layer, nn.Linear) or (layer.groups == 1 and layer.padding_mode == "zeros")
    return small or not plain


def _fitted(
    spanning: Tensor, other: Tensor, mixed: Tensor, widths: Widths
) -> tuple[Tensor, Tensor, Tensor]:
    """An orthonormal basis [long, width], the small matrix [width, short], and the norm.

    The matrix is about basis @ small. `other` is mixed' times it, so that `small` solves least
    squares. What is left of `other` is mixed' times what the basis does not span, and independent
    of the fit, so that its size tells the size of the rest.
    """
    basis = torch.linalg.qr(spanning).Q
    seen, triangle = torch.linalg.qr(mixed.t() @ basis)
    small = torch.linalg.solve_triangular(triangle, seen.t() @ other, upper=True)
    unexplained = other - seen @ (seen.t() @ other)
    spare = widths.other - widths.range
    rest = unexplained.square().sum() / (spare * _scale(len(mixed)) ** 2)
    square = small.square().sum() + rest * (1 - widths.range / (spare - 1))
    return basis, small, square.clamp_min(0).sqrt()


def _of_convolution(
    layer: nn.Conv2d, given: Tensor, pulled: Tensor, omega: Tensor, psi: Tensor
) -> tuple[Tensor, Tensor]:
    """G Omega and Psi G of a convolution: two convolutions, and nothing is unfolded."""
    inner = layer.weight.shape[1:]
    filters = omega.t().reshape(-1, *inner)
    stride, padding, dilation = layer.stride, layer.padding, layer.dilation
    seen = functional.conv2d(given, filters, None, stride, padding, dilation)
    columns = torch.einsum("nohw,nahw->oa", pulled, seen)
    mixed = functional.conv2d(pulled, psi.t()[:, :, None, None])
    size = (mixed.shape[1], *inner)
    rows = conv2d_weight(given, size, mixed, stride, padding, dilation)
    return columns, rows.flatten(1)


def _whole(layer: Layer, given: Tensor, pulled: Tensor) -> Tensor:
    """The gradient of a layer's weight, by the layer's own rules."""
    with torch.enable_grad():
        weight = layer.weight.detach().requires_grad_()
        if isinstance(layer, nn.Linear):
            output = functional.linear(given.detach(), weight)
        else:
            output = layer._conv_forward(given.detach(), weight, None)
        gradient: Tensor = torch.autograd.grad(output, weight, pulled)[0]
    return gradient


def _scale(length: int) -> float:
    """A power of two near the root of 1 / length: sums over `length` numbers stay near 1."""
    return 2.0 ** -round(math.log2(length) / 2)


@lru_cache(maxsize=256)
def _random(length: int, width: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Normal numbers [length, width] times `_scale`, the same ones in every precision."""
    generator = torch.Generator().manual_seed(length * 1_000_003 + width)
    # bfloat16 first: float16 and float32 hold the same numbers without rounding them again
    drawn = torch.randn(length, width, generator=generator).bfloat16().float() * _scale(length)
    return drawn.to(device, dtype)
