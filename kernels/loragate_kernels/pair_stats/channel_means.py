"""`channel_mean_diff`: by how much each channel moved, per probe row.

The profile of a layer says how far its output moved; this says where to. One pass over the
operands, but one launch per pair: meant for a few layers that are looked at closely.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from loragate_kernels._device import launching_on
from loragate_kernels._rows import RowPair, as_row_pairs
from loragate_kernels.backend import Backend, require_backend

CHUNK = 1024
"""Positions per partial result. It fixes the order of summation, so it is no parameter."""

BLOCK_CHANNELS, BLOCK_POSITIONS = 32, 64


def channel_mean_diff(
    pairs: Sequence[tuple[Tensor, Tensor]], *, channel_dim: int = 1, backend: Backend
) -> list[Tensor]:
    """Means of adapted - base over everything but rows and channels.

    Deterministic: reruns and the other pairs of the call change no bit. The reference computes in
    float64; "triton" takes differences and sums in float32 and folds in float64, which is within
    5e-6 of the mean absolute difference, plus the rounding of each difference to float32.

    Args:
        pairs: as for `pair_stats`, of two dimensions or more, and in memory the channels of a row
            must come first ([rows, channels, height, width]) or last (channels_last, or
            [rows, tokens, channels]).
        channel_dim: the dimension of the channels in every pair; not 0, the rows.
        backend: as for `pair_stats`.

    Returns:
        For each pair float64 [rows, channels] on its device. NaN where a channel has a
        non-finite element, where its sum overflows, and where there is nothing to average.

    Raises:
        ValueError: the pairs are malformed, or the channels lie between other dimensions.
        BackendUnavailableError: the backend cannot run on this device in this process.
    """
    rows = as_row_pairs(pairs)
    chosen = require_backend(backend, rows[0].device)
    means = []
    for index, (pair, (base, _)) in enumerate(zip(rows, pairs, strict=True)):
        channels, inner = _channel_layout(index, base, channel_dim)
        if pair.numel == 0 or pair.rows == 0:
            shape = (pair.rows, channels)
            mean = torch.full(shape, torch.nan, dtype=torch.float64, device=base.device)
        elif chosen == "triton":
            mean = _triton_mean(pair, channels, inner)
        else:
            mean = _reference_mean(pair, channels, inner)
        means.append(torch.where(mean.isfinite(), mean, torch.nan))
    return means


def _channel_layout(index: int, tensor: Tensor, channel_dim: int) -> tuple[int, bool]:
    """The number of channels, and whether they are innermost in memory (else outermost)."""
    dimensions = tensor.dim()
    if not -dimensions <= channel_dim < dimensions or channel_dim % dimensions == 0:
        raise ValueError(
            f"pair {index}: channel_dim {channel_dim} is not a dimension inside the rows of "
            f"shape {tuple(tensor.shape)}"
        )
    channels = tensor.shape[channel_dim]
    if tensor.numel() == 0 or channels == 1:
        return channels, False
    stride, positions = tensor.stride(channel_dim), tensor[0].numel() // channels
    if stride not in (1, positions):
        raise ValueError(
            f"pair {index}: the channels lie between other dimensions in memory, shape "
            f"{tuple(tensor.shape)}, strides {tensor.stride()}, channel_dim {channel_dim}"
        )
    return channels, stride != positions


def _reference_mean(pair: RowPair, channels: int, inner: bool) -> Tensor:
    shape = (-1, channels) if inner else (channels, -1)
    base, adapted = (each.unflatten(1, shape).double() for each in (pair.base, pair.adapted))
    mean: Tensor = (adapted - base).mean(1 if inner else 2)
    return mean


def _triton_mean(pair: RowPair, channels: int, inner: bool) -> Tensor:
    # imported late: Triton must not be loaded by those who never ask for it
    from loragate_kernels.pair_stats import kernel

    device, positions = pair.base.device, pair.numel // channels
    chunks = -(-positions // CHUNK)
    channel_blocks = -(-channels // BLOCK_CHANNELS)
    partial = torch.empty(pair.rows, chunks, channels, dtype=torch.float32, device=device)
    mean = torch.empty(pair.rows, channels, dtype=torch.float64, device=device)
    with launching_on(device):
        kernel.channel_diff_partial_kernel[(pair.rows * chunks, channel_blocks)](
            pair.base,
            pair.adapted,
            partial,
            channels,
            positions,
            chunks,
            pair.base.stride(0),
            pair.adapted.stride(0),
            **partial_options(inner),
        )
        kernel.channel_diff_fold_kernel[(pair.rows, channel_blocks)](
            partial, mean, channels, positions, chunks, **fold_options()
        )
    return mean


def partial_options(inner: bool) -> dict[str, Any]:
    """What stage one is compiled for; launches and warm-up both take it from here."""
    return {
        "INNER": inner,
        "CHUNK": CHUNK,
        "BLOCK_C": BLOCK_CHANNELS,
        "BLOCK_P": BLOCK_POSITIONS,
        "num_warps": 4,
        "enable_fp_fusion": True,
    }


def fold_options() -> dict[str, Any]:
    """What stage two is compiled for; launches and warm-up both take it from here."""
    return {"BLOCK_C": BLOCK_CHANNELS, "num_warps": 1, "enable_fp_fusion": True}
