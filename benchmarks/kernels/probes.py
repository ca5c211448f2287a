"""Small programs that a measure runs in a process of its own: python -m benchmarks.kernels.probes.

    warm      what warm-up takes here, and what launches still compile afterwards
    small     a few calls of every kernel, for a memory checker

Each prints one line of JSON.
"""

from __future__ import annotations

import json
import sys
import time

import torch
from torch import Tensor

from benchmarks.kernels.mixes import random_pairs
from loragate_kernels import (
    Directions,
    LowRank,
    channel_mean_diff,
    inner_products,
    pair_stats,
    response_energy,
)
from loragate_kernels.compile_monitor import CompileMonitor
from loragate_kernels.warm_up import warm_up

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SHAPES = ((1, 1), (2, 17), (3, 2047), (1, 40000), (4, 64, 80), (2, 8, 6, 5))


def small(device: torch.device) -> dict[str, object]:
    """Every variant of every kernel; returns how many calls of the operations that took."""
    calls = _pairs(device) + _channels(device) + _responses(device)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return {"calls": calls}


def _pairs(device: torch.device) -> int:
    """Every element type, aligned and not, one row and many, one layer and many."""
    for dtype in DTYPES:
        for count in (1, len(SHAPES)):
            pairs = random_pairs(SHAPES[:count], dtype, device)
            pair_stats(pairs, backend="triton")
        flat = torch.randn(2, 4097, device=device).to(dtype)
        pair_stats([(flat[:1, 1:], flat[1:, :-1])], backend="triton")
    return 3 * len(DTYPES)


def _channels(device: torch.device) -> int:
    """Every element type, channels first and last."""
    for dtype in DTYPES:
        pairs = random_pairs(((2, 5, 33), (1, 16, 64)), dtype, device)
        for channel_dim in (1, 2):
            channel_mean_diff(pairs, channel_dim=channel_dim, backend="triton")
    return 2 * len(DTYPES)


def _responses(device: torch.device) -> int:
    """A rank for every padded one and one beyond them, aligned and not, all forms of operands."""
    calls = 0

    def made(rows: int, columns: int) -> Tensor:
        return torch.randn(rows, columns, device=device)

    # with a single output, or an odd number of inputs, rows are read one element at a time
    for d_out, d_in in ((24, 40), (1, 41)):
        layer = [LowRank(made(rank, d_in), made(d_out, rank)) for rank in (4, 20, 40, 100, 200)]
        for tokens in (32, 33):
            for per_token in (True, False):
                x = made(d_in, tokens)
                response_energy([layer], [x], per_token=per_token, backend="triton")
        x = made(d_in, d_in)
        response_energy([layer], second_moments=[x @ x.t()], backend="triton")
        low, dense = (made(d_out, 3), made(3, d_in)), made(d_out, d_in)
        inner_products([layer], Directions.pack([[low, dense]]), backend="triton")
        calls += 6
    return calls


def warm(device: torch.device) -> dict[str, object]:
    """Seconds of warm-up after the device is initialised, and compilations after it."""
    if device.type == "cuda":
        torch.zeros(1, device=device)
    began = time.monotonic()
    report = warm_up(device)
    seconds = time.monotonic() - began
    with CompileMonitor() as monitor:
        small(device)
    return {
        "seconds": seconds,
        "variants": len(report.compiled),
        "compiled_later": monitor.count,
        "names": list(monitor.compiled),
    }


def main() -> None:
    """Runs the probe named on the command line."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = {"warm": warm, "small": small}[sys.argv[1]](device)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
