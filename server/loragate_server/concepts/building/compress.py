"""A gradient as the few directions that are kept of it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

OVERSAMPLING = 4
_ROUNDING = 1e-4
"""Root of the smallest singular value of a unit-norm gradient that float32 can tell from none."""


def compress(gradient: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """A unit-norm gradient [out, in] as left [rank, out] and right [rank, in]: left' right.

    The best approximation of its rank up to the error of randomised subspace iteration (arXiv
    0909.4061, algorithm 4.4). A gradient of zero, and ranks that the matrix does not have, give
    rows of zeros.
    """
    norm = gradient.norm()
    if not 0 < norm < math.inf:  # who asks looks at the norm, and refuses what is not finite
        return gradient.new_zeros(rank, len(gradient)), gradient.new_zeros(rank, gradient.shape[1])
    unit = gradient / norm
    width = min(rank + OVERSAMPLING, *gradient.shape)
    generator = torch.Generator().manual_seed(0)  # the same gradient gives the same directions
    start = torch.randn(gradient.shape[1], width, generator=generator).to(unit)
    basis = torch.linalg.qr(unit @ start).Q
    basis = torch.linalg.qr(unit @ (unit.t() @ basis)).Q
    small = basis.t() @ unit
    return cut(basis, small, rank)


def cut(basis: Tensor, small: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The leading part of basis [out, width] small [width, in] as left [rank, out] and right.

    The columns of `basis` are orthonormal, and the norm of the whole matrix is 1 or less.
    """
    left = small.new_zeros(rank, len(basis))
    right = small.new_zeros(rank, small.shape[1])
    # squared singular values of the small matrix; ascending, so the leading ones come last
    squares, vectors = torch.linalg.eigh(small @ small.t())
    kept = min(rank, len(small))
    squares, vectors = squares.flip(0)[:kept].clamp_min(0), vectors.flip(1)[:, :kept]
    # the root of the singular value on both sides keeps both well inside float16
    root = squares.pow(0.25)
    left[:kept] = ((basis @ vectors) * root).t()
    # directions that are rounding alone are left out; dividing by their root would blow them up
    real = root > _ROUNDING
    right[:kept] = torch.where(real, vectors / root.clamp_min(_ROUNDING), 0.0).t() @ small
    return left, right
