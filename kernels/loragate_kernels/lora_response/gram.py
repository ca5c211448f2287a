"""R of many B at once, by the Cholesky decomposition of B'B.

||B y||^2 = y' B'B y = ||R y||^2 for every R with R'R = B'B. A GPU makes QR decompositions one after
the other, and sixty take a hundred times as long as the products they are for; Gram matrices
and their decompositions are a handful of launches however many there are.

What squaring costs in digits is paid in float64: the energy of y changes by at most `shift` times
the sum of ||b_k||^2 y_k^2, about 1e-11 of what there would be if nothing cancelled. Products in
float32 are less exact than that until cancellation leaves one part in ten thousand of the
length, and then neither has digits to spare.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from loragate_kernels._device import sent

UNIT_ROUNDOFF = 2.0**-53

SMALLEST_PIVOT = 1e-300
"""For columns of zeros: its root is zero in float32, and no square of a float32 is as small."""


def shift(size: int, d_out: int) -> float:
    """By how much of itself every element of the diagonal of B'B is raised.

    The least that is sure to make the decomposition succeed in float64, even where columns are
    equal or more than their elements: `size` times the rounding of an inner product of `d_out`
    elements and that of the decomposition, both relative to the lengths of the columns.
    """
    return size * (d_out + size + 2) * UNIT_ROUNDOFF


def upper_factors(up: Tensor, first: Sequence[int], ranks: Sequence[int], size: int) -> Tensor:
    """R of the adapters whose transposed B are rows of `up`.

    Args:
        up: the transposes of all B, one below the other, as in a `Stack`.
        first: first row of each of these adapters.
        ranks: rows of each; at least 1, at most `size`.
        size: rows and columns of what is returned.

    Returns:
        Float32 [adapters, size, size], upper triangular. R fills the first columns, as many as the
        rank, and the others hold nothing of meaning. Weights that are not finite spoil the R of
        their own adapter alone.
    """
    # beyond its rank an adapter repeats its last row: columns further left do not feel it
    column = np.minimum(np.arange(size), np.array(ranks)[:, None] - 1)
    index = np.array(first)[:, None] + column
    columns = up.index_select(0, sent(index.ravel(), up.device)).double().view(len(ranks), size, -1)
    gram = columns @ columns.mT
    diagonal = gram.diagonal(dim1=1, dim2=2)
    diagonal.mul_(1.0 + shift(size, up.shape[1])).add_(SMALLEST_PIVOT)
    factor: Tensor = torch.linalg.cholesky_ex(gram, upper=True).L
    return factor.float()
