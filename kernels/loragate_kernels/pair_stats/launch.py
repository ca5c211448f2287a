"""Runs the kernels of `pair_stats` over a pointer table."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from loragate_kernels._pointer_table import build_pointer_table
from loragate_kernels._rows import RowPair
from loragate_kernels.pair_stats.config import PairStatsConfig
from loragate_kernels.pair_stats.kernel import pair_stats_fold_kernel, pair_stats_partial_kernel

TRITON_DTYPES = {
    torch.float32: tl.float32,
    torch.bfloat16: tl.bfloat16,
    torch.float16: tl.float16,
}


def triton_components(
    pairs: Sequence[RowPair], config: PairStatsConfig
) -> tuple[Tensor, dict[str, str]]:
    """Computes the six components of every (pair, row).

    One launch per element type and alignment in `pairs` (commonly one), then one fold. The work
    is enqueued on the current stream of the pairs' device and not waited for.

    Accuracy: 5e-6 relative for sums of squares. Lanes are float32, so squares below 1e-38 lose
    digits and elements beyond 1.8e19 overflow to infinity.

    Returns:
        float64 [6, segments], in the order of `result.COMPONENTS`, on the device of the pairs;
        and which variants ran, as part of the provenance.
    """
    device = pairs[0].base.device
    table = build_pointer_table(pairs, config.chunk)
    chunk_total, segment_total = table.chunks.shape[1], table.segments.shape[1]
    chunks, segments = table.chunks.to(device), table.segments.to(device)
    partial = torch.empty(6, chunk_total, dtype=torch.float32, device=device)
    result = torch.empty(6, segment_total, dtype=torch.float64, device=device)
    with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
        for launch in table.launches:
            pair_stats_partial_kernel[(launch.chunk_count,)](
                chunks,
                partial,
                launch.first_chunk,
                chunk_total,
                DTYPE=TRITON_DTYPES[launch.dtype],
                ALIGNED=launch.aligned,
                BLOCK=config.block,
                num_warps=config.num_warps,
                enable_fp_fusion=config.enable_fp_fusion,
            )
        if segment_total:
            pair_stats_fold_kernel[(segment_total,)](
                segments,
                partial,
                result,
                chunk_total,
                segment_total,
                FOLD_BLOCK=config.fold_block,
                num_warps=1,
                enable_fp_fusion=config.enable_fp_fusion,
            )
    variants = ",".join(
        f"{str(launch.dtype).removeprefix('torch.')}:{'aligned' if launch.aligned else 'scalar'}"
        for launch in table.launches
    )
    return result, {"triton": triton.__version__, "variants": variants}
