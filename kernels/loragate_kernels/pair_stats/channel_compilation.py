"""Which kernels `channel_mean_diff` needs compiled, and how to compile one beforehand."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from loragate_kernels._device import launching_on
from loragate_kernels.pair_stats.channel_means import fold_options, partial_options
from loragate_kernels.pair_stats.config import CONFIG_DTYPES, dtype_name


@dataclass(frozen=True)
class CompileKey:
    """One compiled variant.

    Attributes:
        dtype: element type of stage one; None for the fold.
        inner: whether stage one reads channels that are innermost in memory (else outermost).
    """

    dtype: torch.dtype | None
    inner: bool

    def __str__(self) -> str:
        if self.dtype is None:
            return "channel_mean_diff:fold"
        how = "channels_last" if self.inner else "channels_first"
        return f"channel_mean_diff:{dtype_name(self.dtype)}:{how}"


def compile_keys(_device: torch.device) -> tuple[CompileKey, ...]:
    """Every variant that a call can launch on a device; the same on all."""
    partials = [CompileKey(dtype, inner) for dtype in CONFIG_DTYPES for inner in (False, True)]
    return (*partials, CompileKey(None, False))


def compile_key(key: CompileKey, device: torch.device) -> None:
    """Compiles one variant into this process, from Triton's cache on disk where it is there.

    The numbers given here decide nothing: the kernels are not specialised on them.
    """
    # imported late: the keys can be listed where Triton is not installed
    from loragate_kernels.pair_stats import kernel

    with launching_on(device):
        if key.dtype is None:
            kernel.channel_diff_fold_kernel.warmup(
                torch.float32, torch.float64, 1, 1, 1, grid=(1, 1), **fold_options()
            )
        else:
            kernel.channel_diff_partial_kernel.warmup(
                key.dtype,
                key.dtype,
                torch.float32,
                1,
                1,
                1,
                1,
                1,
                grid=(1, 1),
                **partial_options(key.inner),
            )
