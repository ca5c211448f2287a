"""Providers of `lora_response`: energies of many adapters of one layer, and the cases they get.

Below, K adapters of ranks r over N tokens; e is the size of an element.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.kernels.mixes import Projection
from benchmarks.kernels.registry import Call, Provider, register
from loragate_kernels.lora_response import (
    Directions,
    LayerDirections,
    LowRank,
    response_energy,
)

OP = "lora_response"
OURS, LOOP, PADDED = "ours", "loop over adapters", "bmm, padded ranks"
RANKS = (4, 8, 16, 32, 64)


@dataclass(frozen=True, eq=False)
class EnergyCase:
    """Adapters of one layer and the inputs X [d_in, tokens] that all of them see."""

    adapters: Sequence[LowRank]
    inputs: Tensor

    @property
    def useful_bytes(self) -> int:
        """Every operand read once."""
        tensors = [self.inputs, *(t for one in self.adapters for t in (one.down, one.up))]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def random_adapter(
    d_in: int, d_out: int, rank: int, generator: torch.Generator, dtype: torch.dtype
) -> LowRank:
    """Normal weights, scaled so that outputs are about as large as inputs."""
    device = generator.device
    down = torch.randn(rank, d_in, generator=generator, device=device) / d_in**0.5
    up = torch.randn(d_out, rank, generator=generator, device=device) / max(1, rank) ** 0.5
    return LowRank(down.to(dtype), up.to(dtype), 0.8)


def energy_case(
    d_in: int, d_out: int, tokens: int, count: int, dtype: torch.dtype, device: torch.device
) -> EnergyCase:
    """`count` adapters with the ranks people train, in turn."""
    generator = torch.Generator(device).manual_seed(5)
    adapters = [
        random_adapter(d_in, d_out, RANKS[index % len(RANKS)], generator, dtype)
        for index in range(count)
    ]
    inputs = torch.randn(d_in, tokens, generator=generator, device=device).to(dtype)
    return EnergyCase(adapters, inputs)


def ours_prepare(case: EnergyCase) -> Call:
    """The whole call: stacking the adapters and decomposing every B is part of it."""
    backend = "triton" if case.inputs.is_cuda else "reference"

    def call() -> dict[str, Tensor]:
        found = response_energy([case.adapters], [case.inputs], backend=backend)
        return {"energy": found.energy[0]}

    return call


def ours_traffic(case: EnergyCase) -> int:
    """Operands once, U in float32 written and read. What stacking copies is left out."""
    rank = sum(one.rank for one in case.adapters)
    return case.useful_bytes + 2 * 4 * rank * case.inputs.shape[1]


def loop_prepare(case: EnergyCase) -> Call:
    """For each adapter B (A X) and its norm."""

    def call() -> dict[str, Tensor]:
        energies = []
        for one in case.adapters:
            response = one.up @ (one.down @ case.inputs)
            norm = torch.linalg.vector_norm(response, dtype=torch.float32)
            energies.append((one.scale * norm).square())
        return {"energy": torch.stack(energies)}

    return call


def loop_traffic(case: EnergyCase) -> int:
    """Per adapter: A, X, B read; U (r x N) and the response (d_out x N) written and read."""
    e, (d_in, tokens) = case.inputs.element_size(), case.inputs.shape
    total = 0
    for one in case.adapters:
        d_out, rank = one.up.shape
        total += e * (rank * d_in + d_in * tokens + d_out * rank + 2 * (rank + d_out) * tokens)
    return total


def _widest(case: EnergyCase) -> int:
    return max(one.rank for one in case.adapters)


def padded_prepare(case: EnergyCase) -> Call:
    """Ranks padded to the largest: one product for all A, one batched product for all B."""
    rank, count = _widest(case), len(case.adapters)
    tokens = case.inputs.shape[1]
    pad = torch.nn.functional.pad
    downs = torch.cat([pad(one.down, (0, 0, 0, rank - one.rank)) for one in case.adapters])
    ups = torch.stack([pad(one.up, (0, rank - one.rank)) for one in case.adapters])
    scales = torch.tensor([one.scale for one in case.adapters], device=ups.device)

    def call() -> dict[str, Tensor]:
        u = torch.mm(downs, case.inputs).view(count, rank, tokens)
        response = torch.bmm(ups, u)
        norm = torch.linalg.vector_norm(response, dim=(1, 2), dtype=torch.float32)
        return {"energy": (scales * norm).square()}

    return call


def padded_traffic(case: EnergyCase) -> int:
    """Padded A and B, X; padded U and the responses written and read."""
    e, (d_in, tokens) = case.inputs.element_size(), case.inputs.shape
    rank, count, d_out = _widest(case), len(case.adapters), case.adapters[0].up.shape[0]
    weights = count * rank * (d_in + d_out)
    return e * (weights + d_in * tokens + 2 * count * (rank + d_out) * tokens)


register(
    Provider(
        OP,
        OURS,
        "response_energy, the whole call",
        ours_prepare,
        ours_traffic,
        least_traffic=True,
        graph=False,
    )
)
register(Provider(OP, LOOP, "two products and a norm each", loop_prepare, loop_traffic))
register(Provider(OP, PADDED, "one mm, one bmm, one norm", padded_prepare, padded_traffic))


def random_directions(
    projections: Sequence[Projection], count: int, rank: int, dtype: torch.dtype
) -> Directions:
    """`count` directions of `rank` for every projection, each in memory of its own.

    The numbers are pieces of one supply, as drawing gigabytes takes longer than all the rest.
    """
    generator = torch.Generator().manual_seed(9)
    longest = count * rank * max(max(one.d_out, one.d_in) for one in projections)
    supply = torch.randn(longest + (1 << 16), generator=generator).to(dtype)
    layers = []
    for index, one in enumerate(_repeated(projections)):
        sides = []
        for side, width in enumerate((one.d_out, one.d_in)):
            start = 97 * (2 * index + side) % (1 << 16)
            piece = supply[start : start + count * rank * width]
            sides.append(piece.clone().view(count * rank, width))
        layers.append(LayerDirections.low_rank(sides[0], sides[1], [rank] * count))
    return Directions(tuple(layers))


def random_adapters(
    projections: Sequence[Projection], rank: int, dtype: torch.dtype
) -> list[list[LowRank]]:
    """One adapter of `rank` on every projection, as [layer][adapter]."""
    generator = torch.Generator().manual_seed(11)
    return [
        [random_adapter(one.d_in, one.d_out, rank, generator, dtype)]
        for one in _repeated(projections)
    ]


def _repeated(projections: Sequence[Projection]) -> list[Projection]:
    return [one for one in projections for _ in range(one.count)]
