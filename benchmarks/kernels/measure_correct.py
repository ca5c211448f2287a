"""Every operation on this device against the reference on the CPU, before anything is timed."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.kernels.bench import Bench
from benchmarks.kernels.lora_providers import random_adapter
from benchmarks.kernels.mixes import Pairs
from loragate_kernels import (
    Directions,
    LowRank,
    channel_mean_diff,
    inner_products,
    pair_stats,
    response_energy,
)
from loragate_kernels.pair_stats.result import COMPONENTS

ALLOWED = 5e-6
"""What every operation promises of its sums, relative to those of the reference."""

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SHAPES = ((1, 1), (2, 17), (3, 2047), (2, 32768), (1, 70001), (4, 64, 80), (2, 8, 6, 5))
RANKS = (1, 4, 16, 20, 40, 100, 200)
TOKENS = (1, 33, 32, 1000)
REHEARSED_TOKENS = TOKENS[:2]


def against_reference(bench: Bench) -> None:
    """The largest relative error of each operation, over element types, shapes and alignments."""
    for name, measure in (
        ("pair_stats", _pairs),
        ("channel_mean_diff", _channels),
        ("response_energy", _energies),
        ("response_energy, second moments", _moments),
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


def _channels(device: torch.device) -> float:
    generator, worst = torch.Generator().manual_seed(22), 0.0
    for dtype in DTYPES:
        pairs: Pairs = []
        for shape in ((2, 5, 33), (1, 16, 64), (3, 320, 1024)):
            base = torch.randn(shape, generator=generator).to(dtype)
            pairs.append((base, (base + torch.randn(shape, generator=generator)).to(dtype)))
        for channel_dim in (1, 2):
            ours = channel_mean_diff(_on(pairs, device), channel_dim=channel_dim, backend="triton")
            wanted = channel_mean_diff(pairs, channel_dim=channel_dim, backend="reference")
            for one, other, (base, adapted) in zip(ours, wanted, pairs, strict=True):
                # means cancel, so errors are relative to the mean of what was added up
                moved = (adapted.double() - base.double()).abs()
                size = moved.mean(dim=3 - channel_dim)
                worst = max(worst, _error(one, other, size))
    return worst


def _layer(dtype: torch.dtype, d_in: int, d_out: int) -> list[LowRank]:
    generator = torch.Generator().manual_seed(23)
    return [random_adapter(d_in, d_out, rank, generator, dtype) for rank in RANKS]


def _moved(layer: list[LowRank], device: torch.device) -> list[LowRank]:
    return [LowRank(one.down.to(device), one.up.to(device), one.scale) for one in layer]


SIZES = ((320, 640), (41, 24), (64, 1))


def _energies(device: torch.device) -> float:
    generator, worst = torch.Generator().manual_seed(24), 0.0
    every = TOKENS if device.type == "cuda" else REHEARSED_TOKENS
    for dtype in DTYPES:
        for d_in, d_out in SIZES:
            layer = _layer(dtype, d_in, d_out)
            there = _moved(layer, device)
            for tokens in every:
                x = torch.randn(d_in, tokens, generator=generator).to(dtype)
                ours = response_energy([there], [x.to(device)], per_token=True, backend="triton")
                wanted = response_energy([layer], [x], per_token=True, backend="reference")
                alone = response_energy([there], [x.to(device)], backend="triton")
                if not torch.equal(alone.energy, ours.energy):
                    raise ArithmeticError("energies depend on whether those of tokens are asked")
                [token], [exact] = ours.per_token or (), wanted.per_token or ()
                size = torch.maximum(exact, _typical(layer, x))
                worst = max(worst, _error(token, exact, size))
                worst = max(worst, _error(ours.energy[0], wanted.energy[0], size.sum(dim=1)))
    return worst


def _typical(layer: list[LowRank], x: Tensor) -> Tensor:
    """Float64 [adapters, tokens]: energies that random inputs of such length have on average.

    Errors are relative to these where a token happens to lie across the few directions that an
    adapter of a low rank looks along, so that its own energy has cancelled.
    """
    sizes = []
    for one in layer:
        weight = one.scale * (one.up.double() @ one.down.double())
        sizes.append(weight.square().sum() / len(x) * x.double().square().sum(dim=0))
    return torch.stack(sizes)


def _moments(device: torch.device) -> float:
    generator, worst = torch.Generator().manual_seed(25), 0.0
    for dtype in DTYPES:
        for d_in, d_out in SIZES:
            layer = _layer(dtype, d_in, d_out)
            x = torch.randn(d_in, 500, generator=generator)
            moment = x @ x.t()
            ours = response_energy(
                [_moved(layer, device)], second_moments=[moment.to(device)], backend="triton"
            )
            wanted = response_energy([layer], second_moments=[moment], backend="reference")
            weights = [one.scale * (one.up.double() @ one.down.double()) for one in layer]
            size = torch.stack([w.square().sum() for w in weights]) * moment.double().norm()
            worst = max(worst, _error(ours.energy[0], wanted.energy[0], size))
    return worst


def _products(device: torch.device) -> float:
    generator, worst = torch.Generator().manual_seed(26), 0.0
    for dtype in DTYPES:
        for d_in, d_out in SIZES:
            layer = _layer(dtype, d_in, d_out)
            sides = [
                (
                    torch.randn(d_out, rank, generator=generator).to(dtype),
                    torch.randn(rank, d_in, generator=generator).to(dtype),
                )
                for rank in (1, 8, 8, 3)
            ]
            dense = torch.randn(d_out, d_in, generator=generator).to(dtype)
            packed = Directions.pack([[*sides, dense]])
            moved = Directions.pack(
                [[*((p.to(device), q.to(device)) for p, q in sides), dense.to(device)]]
            )
            ours = inner_products([_moved(layer, device)], moved, backend="triton").values
            wanted = inner_products([layer], packed, backend="reference").values
            weights = torch.stack(
                [(one.scale * (one.up.double() @ one.down.double())).norm() for one in layer]
            )
            every = [*(p.double() @ q.double() for p, q in sides), dense.double()]
            sizes = weights.unsqueeze(1) * torch.stack([one.norm() for one in every])
            worst = max(worst, _error(ours, wanted, sizes))
    return worst


def _error(found: Tensor, wanted: Tensor, size: Tensor) -> float:
    """The largest |found - wanted| / size; NaN in either is an error without end."""
    error = (found.cpu().double() - wanted.double()).abs() / size.clamp(min=1e-30)
    return torch.nan_to_num(error, nan=torch.inf).max().item()
