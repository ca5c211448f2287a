"""`lora_response` in plain PyTorch: energies in float64, inner products at the speed of memory.

Energies are a float64 computation throughout. Inner products have thousands of times as much to
read, and are float32 products (float64 sums over the block of an adapter and a direction), which
`inner_products` states the accuracy of.
"""

from __future__ import annotations

import torch
from torch import Tensor

from loragate_kernels._gemm import matmul_float32
from loragate_kernels.lora_response.adapters import Stack
from loragate_kernels.lora_response.directions import DirectionBlock

TOKEN_CHUNK = 4096
"""Tokens worked off at once. Fixed, because it decides the order of summation."""


class ReferenceEngine:
    """The backend "reference".

    An energy does not depend on the other adapters. Inner products share a matrix product, and a
    product of another size may be summed in another order.
    """

    narrow = False

    def energies(self, made: Stack, inputs: Tensor, per_token: bool) -> tuple[Tensor, Tensor]:
        """See `op.Engine`."""
        adapters, tokens = len(made.ranks), inputs.shape[1]
        weights = reduced_weights(made)
        total = torch.zeros(adapters, dtype=torch.float64, device=inputs.device)
        each = total.new_empty((adapters, tokens if per_token else 0))
        for start in range(0, tokens, TOKEN_CHUNK):
            chunk = inputs[:, start : start + TOKEN_CHUNK].double()
            for adapter, weight in enumerate(weights):
                energy = (weight @ chunk).square().sum(dim=0)
                total[adapter] += energy.sum()
                if per_token:
                    each[adapter, start : start + TOKEN_CHUNK] = energy
        return total, each

    def moment_energies(self, made: Stack, moment: Tensor) -> Tensor:
        """See `op.Engine`."""
        wide = moment.double()
        return torch.stack([((weight @ wide) * weight).sum() for weight in reduced_weights(made)])

    def products(self, made: Stack, block: DirectionBlock) -> Tensor:
        """See `op.Engine`."""
        right = matmul_float32(block.right, made.down.t())
        if block.left is None:
            # dense directions follow each other, and each meets the whole of B
            left = made.up.t().repeat(len(block.lengths), 1)
        else:
            left = matmul_float32(block.left, made.up.t())
        sums = []
        for adapter in range(len(made.ranks)):
            columns = made.rows_of(adapter)
            rows = (left[:, columns].double() * right[:, columns]).sum(dim=1)
            sums.append(torch.segment_reduce(rows, "sum", lengths=block.length_tensor))
        return torch.stack(sums)

    def provenance(self) -> dict[str, str]:
        """See `op.Engine`."""
        return {"token_chunk": str(TOKEN_CHUNK)}


def factors(made: Stack) -> list[Tensor]:
    """R of the QR decomposition of each B, float64 [min(d_out, rank), rank].

    ||B y|| = ||R y|| for every y, and a sum of squares cannot become negative as <B'B, y y'> can.
    """
    result: dict[int, Tensor] = {}
    for rank in set(made.ranks):
        # one call for all of a rank: on a GPU a decomposition is mostly latency
        members = [adapter for adapter, each in enumerate(made.ranks) if each == rank]
        ups = torch.stack([made.up[made.rows_of(adapter)].t().double() for adapter in members])
        found = torch.linalg.qr(ups, mode="r").R
        result |= dict(zip(members, found.unbind(), strict=True))
    return [result[adapter] for adapter in range(len(made.ranks))]


def reduced_weights(made: Stack) -> list[Tensor]:
    """R A of each adapter, float64 [min(d_out, rank), d_in]."""
    return [
        factor @ made.down[made.rows_of(adapter)].double()
        for adapter, factor in enumerate(factors(made))
    ]
