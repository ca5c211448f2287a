"""Which kernels `pair_stats` needs compiled on a device, and how to compile one beforehand."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from loragate_kernels._device import launching_on
from loragate_kernels.pair_stats.config import (
    CONFIG_DTYPES,
    PairStatsConfig,
    architecture_of,
    choose_config,
    dtype_name,
)


@dataclass(frozen=True)
class CompileKey:
    """One compiled variant.

    Attributes:
        dtype: element type of stage one; None for the fold.
        aligned: whether stage one reads rows that all start at a multiple of 16 bytes.
        config: the constants that it is compiled with.
    """

    dtype: torch.dtype | None
    aligned: bool
    config: PairStatsConfig

    def __str__(self) -> str:
        if self.dtype is None:
            return "pair_stats:fold"
        return f"pair_stats:{dtype_name(self.dtype)}:{'aligned' if self.aligned else 'scalar'}"


def compile_keys(device: torch.device) -> tuple[CompileKey, ...]:
    """Every variant that a call without a configuration of its own can launch on `device`."""
    choice = choose_config(architecture_of(device))
    partials = [
        CompileKey(dtype, aligned, choice.by_dtype[dtype])
        for dtype in CONFIG_DTYPES
        for aligned in (True, False)
    ]
    return (*partials, CompileKey(None, False, choice.fold))


def compile_key(key: CompileKey, device: torch.device) -> None:
    """Compiles one variant into this process, from Triton's cache on disk where it is there.

    The numbers given here decide nothing: the kernels are not specialised on them.
    """
    # imported late: the keys can be listed where Triton is not installed
    from loragate_kernels.pair_stats import kernel, launch

    with launching_on(device):
        if key.dtype is None:
            kernel.pair_stats_fold_kernel.warmup(
                torch.int64,
                torch.float32,
                torch.float64,
                1,
                1,
                grid=(1,),
                **launch.fold_options(key.config),
            )
        else:
            kernel.pair_stats_partial_kernel.warmup(
                torch.int64,
                torch.float32,
                0,
                1,
                grid=(1,),
                **launch.partial_options(key.dtype, key.aligned, key.config),
            )
