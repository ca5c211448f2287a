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
from loragate_kernels.lora_response.config import LoraResponseConfig, rank_block
from loragate_kernels.lora_response.directions import LayerDirections
from loragate_kernels.lora_response.kernel import (
    lora_response_fold_kernel,
    lora_response_product_kernel,
)

_Options = dict[str, Any]


def product_options(padded: int, c: LoraResponseConfig) -> _Options:
    """What the product kernel is compiled for."""
    return {
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

    Per layer: two matrix products, one launch for each padded rank among the adapters, one fold.
    """

    narrow = True

    def __init__(self, config: LoraResponseConfig) -> None:
        self._config = config
        self._variants: set[str] = set()

    def products(self, made: Stack, directions: LayerDirections) -> Tensor:
        """See `op.Engine`."""
        adapters, rows = len(made.ranks), len(directions.right)
        right = matmul_float32(directions.right, made.down.t())
        left = matmul_float32(directions.left, made.up.t())
        partial = torch.empty(adapters, rows, dtype=torch.float32, device=right.device)
        groups: dict[int, list[tuple[int, ...]]] = {}
        for adapter, (rank, first) in enumerate(zip(made.ranks, made.first, strict=True)):
            if rank and rows:
                entry = (first, first, rows, rank, adapter * rows)
                groups.setdefault(rank_block(rank), []).append(entry)
        for padded, entries in groups.items():
            self._product_launch(padded, entries, left, right, partial)
        lengths = np.array(directions.lengths)
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
        table = sent(np.array(entries).T, out.device)
        self._variants.add(f"product:{padded}")
        blocks = -(-len(left) // (self._config.tile // padded))
        with launching_on(out.device):
            lora_response_product_kernel[(blocks, len(entries))](
                table,
                left,
                right,
                out,
                len(entries),
                left.stride(0),
                right.stride(0),
                **product_options(padded, self._config),
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

    def provenance(self) -> dict[str, str]:
        """See `op.Engine`."""
        options = {name: str(value) for name, value in asdict(self._config).items()}
        variants = ",".join(sorted(self._variants))
        return options | {"triton": triton.__version__, "variants": variants}
