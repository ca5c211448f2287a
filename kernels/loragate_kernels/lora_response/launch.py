"""Runs the kernels of `lora_response` over stacked adapters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
import triton
from torch import Tensor

from loragate_kernels._device import Numbers, launching_on, sent
from loragate_kernels._gemm import matmul_float32
from loragate_kernels.lora_response.adapters import Stack
from loragate_kernels.lora_response.config import RANK_BLOCKS, LoraResponseConfig, rank_block
from loragate_kernels.lora_response.directions import DirectionBlock
from loragate_kernels.lora_response.gram import upper_factors
from loragate_kernels.lora_response.kernel import (
    lora_response_energy_kernel,
    lora_response_fold_kernel,
    lora_response_product_kernel,
)
from loragate_kernels.lora_response.reference import reduced_weights

_Options = dict[str, Any]


def energy_options(padded: int, aligned: bool, per_token: bool, c: LoraResponseConfig) -> _Options:
    """What the energy kernel is compiled for."""
    return {
        "ALIGNED": aligned,
        "PER_TOKEN": per_token,
        "RANK_BLOCK": padded,
        "TOKEN_BLOCK": c.token_block,
        # what a thread holds grows with the rank; from here on it would not fit the registers
        "num_warps": c.num_warps * (2 if padded >= 128 else 1),
        "enable_fp_fusion": c.enable_fp_fusion,
    }


def product_options(padded: int, aligned: bool, c: LoraResponseConfig) -> _Options:
    """What the product kernel is compiled for."""
    return {
        "ALIGNED": aligned,
        "ROW_BLOCK": c.tile // padded,
        "COLUMN_BLOCK": padded,
        "num_warps": c.num_warps,
        "enable_fp_fusion": c.enable_fp_fusion,
    }


def fold_options(c: LoraResponseConfig) -> _Options:
    """What stage two is compiled for."""
    return {
        "FOLD_BLOCK": c.fold_block,
        "num_warps": 1,
        "enable_fp_fusion": c.enable_fp_fusion,
    }


class TritonEngine:
    """The backend "triton". Work is enqueued on the current stream and not waited for.

    Per layer: one matrix product (two for low-rank directions), one launch for each padded rank
    among the adapters, one fold.
    """

    narrow = True

    def __init__(self, config: LoraResponseConfig) -> None:
        self._config = config
        self._variants: set[str] = set()

    def energies(self, made: Stack, inputs: Tensor, per_token: bool) -> tuple[Tensor, Tensor]:
        """See `op.Engine`."""
        adapters, tokens, device = len(made.ranks), inputs.shape[1], inputs.device
        block, chunk = self._config.token_block, self._config.token_chunk
        blocks = -(-tokens // block)
        partial = torch.empty(adapters, blocks, dtype=torch.float32, device=device)
        # the type is said, for the kernel is compiled for it: the default belongs to the process
        each = torch.empty(adapters, tokens if per_token else 0, dtype=torch.float32, device=device)
        for adapter, rank in enumerate(made.ranks):
            if rank == 0:
                each[adapter] = 0.0  # no program writes it
        groups = _energy_groups(made)
        for start in range(0, tokens, chunk):
            u = matmul_float32(made.down, inputs[:, start : start + chunk])
            for padded, (table, factor) in groups.items():
                self._energy_launch(padded, table, factor, u, partial, each, start, per_token)
        counts = [blocks if rank else 0 for rank in made.ranks]
        starts = np.arange(adapters) * blocks
        return self._fold(partial, np.stack([starts, counts])), each.double()

    def _energy_launch(
        self,
        padded: int,
        table: Tensor,
        factor: Tensor,
        u: Tensor,
        partial: Tensor,
        each: Tensor,
        start: int,
        per_token: bool,
    ) -> None:
        """One launch: all adapters of one padded rank, the tokens of `u` (from `start` on)."""
        config, count = self._config, u.shape[1]
        aligned = count % 16 == 0 and each.shape[1] % 16 == 0
        self._note("energy", padded, aligned)
        with launching_on(u.device):
            lora_response_energy_kernel[(-(-count // config.token_block), table.shape[1])](
                table,
                factor,
                u,
                partial,
                each,
                table.shape[1],
                count,
                start,
                each.shape[1],
                partial.shape[1],
                **energy_options(padded, aligned, per_token, config),
            )

    def moment_energies(self, made: Stack, moment: Tensor) -> Tensor:
        """See `op.Engine`. The rows of W = R A take the place of directions: (W C) o W."""
        width = moment.shape[0]
        weights = reduced_weights(made)
        rows = [len(weight) for weight in weights]
        starts = [sum(rows[:adapter]) for adapter in range(len(rows))]
        left = torch.cat(weights).float()
        right = matmul_float32(left, moment)
        partial = torch.empty(len(left), dtype=torch.float32, device=left.device)
        entries = [
            (start * width, start * width, count, width, start)
            for start, count in zip(starts, rows, strict=True)
            if count
        ]
        self._product_launch(RANK_BLOCKS[-1], entries, left, right, partial)
        return self._fold(partial, np.array([starts, rows]))

    def products(self, made: Stack, block: DirectionBlock) -> Tensor:
        """See `op.Engine`."""
        adapters, rows = len(made.ranks), len(block.right)
        right = matmul_float32(block.right, made.down.t())
        if block.left is None:
            # dense directions follow each other, and each meets the whole of B
            left = made.up.t().float().contiguous()
        else:
            left = matmul_float32(block.left, made.up.t())
        partial = torch.empty(adapters, rows, dtype=torch.float32, device=right.device)
        groups: dict[int, list[tuple[int, ...]]] = {}
        for adapter, (rank, first) in enumerate(zip(made.ranks, made.first, strict=True)):
            if rank and rows:
                entry = (first, first, rows, rank, adapter * rows)
                groups.setdefault(rank_block(rank), []).append(entry)
        for padded, entries in groups.items():
            self._product_launch(padded, entries, left, right, partial)
        lengths = np.array(block.lengths)
        starts = np.arange(adapters)[:, None] * rows + lengths.cumsum() - lengths
        counts = lengths * (np.array(made.ranks) > 0)[:, None]
        segments = np.stack([starts.ravel(), counts.ravel()])
        return self._fold(partial, segments).view(adapters, -1)

    def _product_launch(
        self,
        padded: int,
        entries: Sequence[Sequence[int]],
        left: Tensor,
        right: Tensor,
        out: Tensor,
    ) -> None:
        """One launch over `entries`, the columns of the kernel's table."""
        if not entries:
            return
        config = self._config
        table = sent(np.array(entries).T, out.device)
        aligned = left.stride(0) % 4 == right.stride(0) % 4 == 0
        self._note("product", padded, aligned)
        height = config.tile // padded
        blocks = -(-max(entry[2] for entry in entries) // height)
        with launching_on(out.device):
            lora_response_product_kernel[(blocks, len(entries))](
                table,
                left,
                right,
                out,
                len(entries),
                len(left),
                left.stride(0),
                right.stride(0),
                **product_options(padded, aligned, config),
            )

    def _fold(self, partial: Tensor, segments: Numbers) -> Tensor:
        """Float64 [segments]: sums of consecutive elements of `partial`.

        Args:
            partial: float32, what stage one left.
            segments: [2, segments], the first element of each and their number.
        """
        total = segments.shape[1]
        result = torch.empty(total, dtype=torch.float64, device=partial.device)
        with launching_on(partial.device):
            lora_response_fold_kernel[(total,)](
                sent(segments, partial.device),
                partial,
                result,
                total,
                **fold_options(self._config),
            )
        return result

    def _note(self, kind: str, padded: int, aligned: bool) -> None:
        self._variants.add(f"{kind}:{padded}:{'aligned' if aligned else 'scalar'}")

    def provenance(self) -> dict[str, str]:
        """See `op.Engine`."""
        options = {name: str(value) for name, value in asdict(self._config).items()}
        variants = ",".join(sorted(self._variants))
        return options | {"triton": triton.__version__, "variants": variants}


def _energy_groups(made: Stack) -> dict[int, tuple[Tensor, Tensor]]:
    """By padded rank: the kernel's table [6, entries] and the factors it points into."""
    members: dict[int, dict[int, list[int]]] = {}
    for adapter, rank in enumerate(made.ranks):
        if rank:
            padded = rank_block(rank)
            size = -(-rank // padded) * padded
            members.setdefault(padded, {}).setdefault(size, []).append(adapter)
    return {padded: _energy_group(made, sizes) for padded, sizes in members.items()}


def _energy_group(made: Stack, sizes: dict[int, list[int]]) -> tuple[Tensor, Tensor]:
    """Table and factors of the adapters of one launch, given by the size of their R."""
    entries, filled, offset = [], [], 0
    for size, adapters in sizes.items():
        first = [made.first[adapter] for adapter in adapters]
        ranks = [made.ranks[adapter] for adapter in adapters]
        filled.append(upper_factors(made.up, first, ranks, size).flatten())
        for adapter, row, rank in zip(adapters, first, ranks, strict=True):
            entries.append((adapter, row, rank, rank, offset, size))
            offset += size * size
    table = sent(np.array(entries).T, made.down.device)
    return table, filled[0] if len(filled) == 1 else torch.cat(filled)
