"""Every operation on this device against the reference on the CPU, before anything is timed."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.kernels.bench import Bench
from benchmarks.kernels.lora_cases import random_adapter
from benchmarks.kernels.mixes import Pairs
from loragate_kernels import (
    Directions,
    LayerDirections,
    LowRank,
    inner_products,
    pair_stats,
)
from loragate_kernels.pair_stats.result import COMPONENTS

ALLOWED = 5e-6
"""What every operation promises of its sums, relative to those of the reference."""

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SHAPES = ((1, 1), (2, 17), (3, 2047), (2, 32768), (1, 70001), (4, 64, 80), (2, 8, 6, 5))
RANKS = (1, 4, 16, 20, 40, 100, 200)
DIRECTION_RANKS = (1, 8, 8, 3)


def against_reference(bench: Bench) -> None:
    """The largest relative error of each operation, over element types, shapes and alignments."""
    for name, measure in (
        ("pair_stats", _pairs),
        ("inner_products", _products),
    ):
        try:
            error = measure(bench.device)
        except TimeoutError:
            raise
        except Exception as failure:
            bench.note(name, failure)
            bench.check(f"{name}, like the reference", False, "see the notes")
        else:
            text = f"largest relative error {error:.1e}, allowed {ALLOWED:.0e}"
            bench.check(f"{name}, like the reference", error <= ALLOWED, text)


def _on(pairs: Pairs, device: torch.device) -> Pairs:
    return [(base.to(device), adapted.to(device)) for base, adapted in pairs]


def _some_pairs(dtype: torch.dtype, generator: torch.Generator) -> Pairs:
    """Contiguous ones, one in channels_last, and one with an infinity and a NaN in its rows."""
    pairs = [
        tuple(torch.randn(shape, generator=generator).to(dtype) for _ in range(2))
        for shape in SHAPES
    ]
    last = [side.contiguous(memory_format=torch.channels_last) for side in pairs[-1]]
    return [*pairs, (last[0], last[1])]


def _pairs(device: torch.device) -> float:
    """Rows that start at multiples of 16 bytes, rows that do not, and positions not finite."""
    generator, worst = torch.Generator().manual_seed(21), 0.0
    for dtype in DTYPES:
        pairs = _some_pairs(dtype, generator)
        there = _on(pairs, device)
        flat = torch.randn(2, 40001, generator=generator).to(dtype)
        pairs.append((flat[:1, 1:], flat[1:, :-1]))
        moved = flat.to(device)
        there.append((moved[:1, 1:], moved[1:, :-1]))
        found = pair_stats(there, backend="triton")
        wanted = pair_stats(pairs, backend="reference")
        norms = (wanted.sum_sq_base * wanted.sum_sq_adapted).sqrt()
        for name in COMPONENTS[:5]:
            size = norms if name == "sum_product" else getattr(wanted, name)
            worst = max(worst, _error(getattr(found, name), getattr(wanted, name), size))
        broken = torch.randn(2, 3000, generator=generator).to(dtype)
        broken[0, 7], broken[1, 2999] = torch.inf, torch.nan
        for base in (broken, torch.ones_like(broken)):
            other = torch.zeros_like(broken) if base is broken else broken
            ours = pair_stats(_on([(base, other)], device), backend="triton").nonfinite_count
            if ours.tolist() != [1, 1]:
                raise ArithmeticError(f"{dtype}: non-finite positions {ours.tolist()}, not [1, 1]")
    return worst


def _layer(dtype: torch.dtype, d_in: int, d_out: int) -> list[LowRank]:
    generator = torch.Generator().manual_seed(23)
    return [random_adapter(d_in, d_out, rank, generator, dtype) for rank in RANKS]


def _moved(layer: list[LowRank], device: torch.device) -> list[LowRank]:
    return [LowRank(one.down.to(device), one.up.to(device), one.scale) for one in layer]


SIZES = ((320, 640), (41, 24), (64, 1))


def _products(device: torch.device) -> float:
    generator, worst = torch.Generator().manual_seed(26), 0.0
    for dtype in DTYPES:
        for d_in, d_out in SIZES:
            layer = _layer(dtype, d_in, d_out)
            left, right = (
                torch.randn(sum(DIRECTION_RANKS), width, generator=generator).to(dtype)
                for width in (d_out, d_in)
            )
            there = _stacked(left.to(device), right.to(device))
            ours = inner_products([_moved(layer, device)], there, backend="triton").values
            wanted = inner_products([layer], _stacked(left, right), backend="reference").values
            weights = torch.stack(
                [(one.scale * (one.up.double() @ one.down.double())).norm() for one in layer]
            )
            parts = (side.double().split(DIRECTION_RANKS) for side in (left, right))
            norms = torch.stack([(p.t() @ q).norm() for p, q in zip(*parts, strict=True)])
            worst = max(worst, _error(ours, wanted, weights.unsqueeze(1) * norms))
    return worst


def _stacked(left: Tensor, right: Tensor) -> Directions:
    return Directions((LayerDirections.low_rank(left, right, DIRECTION_RANKS),))


def _error(found: Tensor, wanted: Tensor, size: Tensor) -> float:
    """The largest |found - wanted| / size; NaN in either is an error without end."""
    error = (found.cpu().double() - wanted.double()).abs() / size.clamp(min=1e-30)
    return torch.nan_to_num(error, nan=torch.inf).max().item()
