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

    def usable(self) -> Tensor:
        """Bool [segments]: no element was non-finite and no sum overflowed."""
        finite = torch.isfinite(self.sum_sq_diff) & torch.isfinite(self.sum_product)
        finite &= torch.isfinite(self.sum_sq_base) & torch.isfinite(self.sum_sq_adapted)
        return finite & (self.nonfinite_count == 0)

    def relative_change(self) -> Tensor:
        """sqrt(sum (a-b)^2 / sum a^2), float64 [segments].

        0 where a and b are both all zero; infinite where only a is.
        """
        ratio = self.sum_sq_diff / self.sum_sq_base
        return torch.where(self.sum_sq_diff == 0, 0.0, ratio).sqrt()

    def cosine_similarity(self) -> Tensor:
        """sum a*b / sqrt(sum a^2 * sum b^2) in [-1, 1], float64 [segments].

        1 where a and b are both all zero (nothing changed); 0 where one of them is.
        """
        norms = (self.sum_sq_base * self.sum_sq_adapted).sqrt()
        cosine = (self.sum_product / norms).clamp(-1.0, 1.0)
        both_zero = (self.sum_sq_base == 0) & (self.sum_sq_adapted == 0)
        return torch.where(norms == 0, both_zero.double(), cosine)

    def energy_ratio(self) -> Tensor:
        """sum b^2 / sum a^2, float64 [segments].

        1 where a and b are both all zero (nothing changed); infinite where only a is.
        """
        both_zero = (self.sum_sq_base == 0) & (self.sum_sq_adapted == 0)
        return torch.where(both_zero, 1.0, self.sum_sq_adapted / self.sum_sq_base)


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
