"""What `inner_products` returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from loragate_kernels.backend import Backend


@dataclass(frozen=True, eq=False)
class InnerProducts:
    """Inner products <G_j, s_k B_k A_k> of directions and adapters.

    NaN where a weight of the adapter is not finite. A direction that is not finite gives NaN or
    infinity in its column.

    Attributes:
        values: float64 [layers, adapters, directions].
        nonfinite: bool [layers, adapters]: a weight of the adapter is NaN or infinite there.
        backend: what computed the sums.
        provenance: everything that can change the last bits: versions, block sizes and so on.
    """

    values: Tensor
    nonfinite: Tensor
    backend: Backend
    provenance: Mapping[str, str]
