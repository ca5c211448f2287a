"""Runs the kernels of `pair_stats` over a pointer table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from loragate_kernels._device import launching_on
from loragate_kernels._pointer_table import build_pointer_table
from loragate_kernels._rows import RowPair
from loragate_kernels.pair_stats.config import (
    ConfigChoice,
    PairStatsConfig,
    architecture_of,
    choose_config,
    dtype_name,
)
from loragate_kernels.pair_stats.kernel import pair_stats_fold_kernel, pair_stats_partial_kernel

TRITON_DTYPES = {
    torch.float32: tl.float32,
    torch.bfloat16: tl.bfloat16,
    torch.float16: tl.float16,
}


def partial_options(dtype: torch.dtype, aligned: bool, config: PairStatsConfig) -> dict[str, Any]:
    """What stage one is compiled for; launches and warm-up both take it from here."""
    return {
        "DTYPE": TRITON_DTYPES[dtype],
        "ALIGNED": aligned,
        "BLOCK": config.block,
        "num_warps": config.num_warps,
        "enable_fp_fusion": config.enable_fp_fusion,
    }


def fold_options(config: PairStatsConfig) -> dict[str, Any]:
    """What stage two is compiled for; launches and warm-up both take it from here."""
    return {
        "FOLD_BLOCK": config.fold_block,
        "num_warps": 1,
        "enable_fp_fusion": config.enable_fp_fusion,
    }


def triton_components(
    pairs: Sequence[RowPair], given: PairStatsConfig | None
) -> tuple[Tensor, dict[str, str]]:
    """Computes the six components of every (pair, row).

    One launch per element type and alignment in `pairs` (commonly one), then one fold. The work
    is enqueued on the current stream of the pairs' device and not waited for.

    Accuracy: 5e-6 relative for sums of squares. Lanes are float32, so squares below 1e-38 lose
    digits and elements beyond 1.8e19 overflow to infinity.

    Args:
        pairs: operands, all on one device.
        given: configuration for all element types; the table's when it is None.

    Returns:
        float64 [6, segments], in the order of `result.COMPONENTS`, on the device of the pairs;
        and which configuration and variants ran, as part of the provenance.
    """
    device = pairs[0].device
    choice = choose_config(architecture_of(device), given)
    chunk_sizes = {dtype: config.chunk for dtype, config in choice.by_dtype.items()}
    table = build_pointer_table(pairs, chunk_sizes)
    with launching_on(device):
        chunks, segments = table.on(device)
        partial = torch.empty(6, chunks.shape[1], dtype=torch.float32, device=device)
        result = torch.empty(6, segments.shape[1], dtype=torch.float64, device=device)
        for launch in table.launches:
            pair_stats_partial_kernel[(launch.chunk_count,)](
                chunks,
                partial,
                launch.first_chunk,
                partial.shape[1],
                **partial_options(launch.dtype, launch.aligned, choice.by_dtype[launch.dtype]),
            )
        _fold(segments, partial, result, choice)
    variants = ",".join(
        f"{dtype_name(launch.dtype)}:{'aligned' if launch.aligned else 'scalar'}"
        for launch in table.launches
    )
    return result, choice.described() | {"triton": triton.__version__, "variants": variants}


def _fold(segments: Tensor, partial: Tensor, result: Tensor, choice: ConfigChoice) -> None:
    if segments.shape[1]:
        pair_stats_fold_kernel[(segments.shape[1],)](
            segments,
            partial,
            result,
            partial.shape[1],
            result.shape[1],
            **fold_options(choice.fold),
        )
