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
from loragate_kernels import Directions, LayerDirections, LowRank, inner_products, pair_stats
from loragate_kernels.compile_monitor import CompileMonitor
from loragate_kernels.warm_up import warm_up

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SHAPES = ((1, 1), (2, 17), (3, 2047), (1, 40000), (4, 64, 80), (2, 8, 6, 5))


def small(device: torch.device) -> dict[str, object]:
    """Every variant of every kernel; returns how many calls of the operations that took."""
    calls = _pairs(device) + _products(device)
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


def _products(device: torch.device) -> int:
    """A rank for every padded one and one beyond them."""
    calls = 0

    def made(rows: int, columns: int) -> Tensor:
        return torch.randn(rows, columns, device=device)

    for d_out, d_in in ((24, 40), (1, 41)):
        layer = [LowRank(made(rank, d_in), made(d_out, rank)) for rank in (4, 20, 40, 100, 200)]
        known = LayerDirections.low_rank(made(4, d_out), made(4, d_in), (3, 1))
        inner_products([layer], Directions((known,)), backend="triton")
        calls += 1
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
