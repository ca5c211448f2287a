"""`PairStats`: the sums of a list of pairs and what follows from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from loragate_kernels.backend import Backend

COMPONENTS = (
    "sum_sq_diff",
    "sum_sq_base",
    "sum_sq_adapted",
    "sum_product",
    "max_abs_diff",
    "nonfinite_count",
)
"""Order of the components in the kernels' partial results."""


@dataclass(frozen=True, eq=False)
class PairStats:
    """Sums over each row of each pair, pairs one after the other.

    With base row a and adapted row b. A row with a non-finite element in a or b has NaN in all
    its sums and in its maximum, whatever the other elements are.

    Attributes:
        sum_sq_diff: sum of (a - b)^2; float64 [segments], as are all below unless stated.
        sum_sq_base: sum of a^2.
        sum_sq_adapted: sum of b^2.
        sum_product: sum of a * b.
        max_abs_diff: largest |a - b|, the difference rounded to float32.
        nonfinite_count: positions at which a or b is NaN or infinite; int64 [segments].
        row_offsets: pair i has the segments row_offsets[i] to row_offsets[i + 1] - 1.
        backend: what computed the sums.
        provenance: everything that can change the last bits: versions, block sizes and so on.
    """

    sum_sq_diff: Tensor
    sum_sq_base: Tensor
    sum_sq_adapted: Tensor
    sum_product: Tensor
    max_abs_diff: Tensor
    nonfinite_count: Tensor
    row_offsets: tuple[int, ...]
    backend: Backend
    provenance: Mapping[str, str]

    def rows_of(self, pair: int) -> slice:
        """The segments of pair number `pair`, to index any of the tensors with."""
        return slice(self.row_offsets[pair], self.row_offsets[pair + 1])


def build_result(
    components: Tensor, row_offsets: tuple[int, ...], backend: Backend, provenance: dict[str, str]
) -> PairStats:
    """Names the rows of `components` and marks rows with non-finite elements.

    The largest |a - b| skips NaN on most devices, and a sum may be infinite instead of NaN, so
    such rows are overwritten with NaN here, for all backends alike.

    Args:
        components: float64 [6, segments] in the order of `COMPONENTS`.
        row_offsets: as in `PairStats`.
        backend: as in `PairStats`.
        provenance: as in `PairStats`.
    """
    count = components[5].long()
    values = components[:5].masked_fill(count != 0, torch.nan)
    return PairStats(
        **dict(zip(COMPONENTS, values.unbind(), strict=False)),
        nonfinite_count=count,
        row_offsets=row_offsets,
        backend=backend,
        provenance=provenance,
    )
