"""`pair_stats`: checks the operands, chooses the backend, records how it was computed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from loragate_kernels._device import device_name
from loragate_kernels._rows import as_row_pairs
from loragate_kernels.backend import Backend, require_backend
from loragate_kernels.pair_stats.config import PairStatsConfig
from loragate_kernels.pair_stats.reference import TILE_ELEMENTS, reference_components
from loragate_kernels.pair_stats.result import PairStats, build_result


def pair_stats(
    pairs: Sequence[tuple[Tensor, Tensor]],
    *,
    backend: Backend,
    config: PairStatsConfig | None = None,
) -> PairStats:
    """Compares base and adapted activations of many layers, per probe row.

    Equal inputs give a difference of exactly zero. The result of a row does not depend on the
    other rows or pairs of the call, and is the same bit for bit when repeated. With "triton" on
    a CUDA device nothing is waited for: keep the operands unchanged as you would for any
    operation on the current stream.

    Args:
        pairs: (base, adapted), each [rows, ...] in float32, bfloat16 or float16. Rows may lie
            apart in memory, but each must be dense; the order of the other dimensions is free as
            long as both tensors share it (channels_last is accepted). Nothing is copied.
        backend: "reference" (PyTorch, any device) or "triton" (CUDA, or the interpreter).
        config: how the Triton kernels are launched; from `config.TABLE` when None, by the
            device's architecture and the element type. The reference ignores it.

    Returns:
        One segment per (pair, row), on the device of the operands.

    Raises:
        ValueError: `pairs` is empty or malformed, or the backend is unknown.
        BackendUnavailableError: the backend cannot run on this device in this process.
    """
    rows = as_row_pairs(pairs)
    device = rows[0].device
    chosen = require_backend(backend, device)
    provenance = {"backend": chosen, "torch": torch.__version__, "device": device_name(device)}
    if chosen == "triton":
        # imported late: Triton must not be loaded by those who never ask for it
        from loragate_kernels.pair_stats.launch import triton_components

        components, how = triton_components(rows, config)
        provenance |= how
    else:
        components = reference_components(rows)
        provenance["tile"] = str(TILE_ELEMENTS)
    offsets = tuple(accumulate((pair.rows for pair in rows), initial=0))
    return build_result(components, offsets, chosen, provenance)
