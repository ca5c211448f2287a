"""`lora_response` in plain PyTorch: inner products at the speed of memory.

What is large is a float32 product; the sums over the block of an adapter and a direction are
float64. `inner_products` states how accurate that is.
"""

from __future__ import annotations

import torch
from torch import Tensor

from loragate_kernels._gemm import matmul_float32
from loragate_kernels.lora_response.adapters import Stack
from loragate_kernels.lora_response.directions import LayerDirections


class ReferenceEngine:
    """The backend "reference".

    All adapters share a matrix product, and one of another size may be summed in another order.
    """

    narrow = False

    def products(self, made: Stack, directions: LayerDirections) -> Tensor:
        """See `op.Engine`."""
        right = matmul_float32(directions.right, made.down.t())
        left = matmul_float32(directions.left, made.up.t())
        sums = []
        for adapter in range(len(made.ranks)):
            columns = made.rows_of(adapter)
            rows = (left[:, columns].double() * right[:, columns]).sum(dim=1)
            sums.append(torch.segment_reduce(rows, "sum", lengths=directions.length_tensor))
        return torch.stack(sums)

    def provenance(self) -> dict[str, str]:
        """See `op.Engine`."""
        return {}
