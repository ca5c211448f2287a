"""The small version for machines without a GPU: the reference backend against eager PyTorch."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from benchmarks.kernels import lora_cases
from benchmarks.kernels.bench import Bench
from benchmarks.kernels.mixes import mix, projections, random_pairs
from benchmarks.kernels.pair_providers import (
    BEST,
    CORRECT,
    FOREACH,
    IDIOMATIC,
    OP,
    REFERENCE,
    useful_bytes,
)
from benchmarks.kernels.registry import provider
from benchmarks.kernels.timing import time_in_turns, time_wall
from loragate_kernels.lora_response import inner_products

ADAPTER_RANK, DIRECTION_RANK, DIRECTIONS = 16, 8, 100
LIMIT_S = 1.0


def pairs(bench: Bench) -> None:
    """`pair_stats` on the activations of SD 1.5, in the type that CPUs audit with."""
    _pairs(bench, (REFERENCE, IDIOMATIC, CORRECT, BEST, FOREACH), torch.float32)


def narrow_pairs(bench: Bench) -> None:
    """The same in bfloat16, where the eager alternatives have to widen or lose digits."""
    _pairs(bench, (REFERENCE, IDIOMATIC, CORRECT, BEST), torch.bfloat16)


def _pairs(bench: Bench, names: Sequence[str], dtype: torch.dtype) -> None:
    case = mix("sd15", 1)
    sets = [random_pairs(case.shapes, dtype, bench.device, seed) for seed in range(2)]
    found = [provider(OP, name) for name in names]
    timings = time_in_turns([[one.prepare(pairs) for pairs in sets] for one in found])
    useful = useful_bytes(sets[0])
    for one, timing in zip(found, timings, strict=True):
        bench.add_row(OP, one.name, case.name, dtype, timing, useful, one.traffic(sets[0]))


def directions(bench: Bench) -> None:
    """An adapter on all attention projections of SDXL against 100 directions per layer."""
    layers = projections("sdxl")
    count = sum(one.count for one in layers)
    for dtype in (torch.bfloat16, torch.float32):
        known = lora_cases.random_directions(layers, DIRECTIONS, DIRECTION_RANK, dtype)
        adapters = lora_cases.random_adapters(layers, ADAPTER_RANK, dtype)
        processor = time.process_time()
        timing = time_wall(
            [lambda k=known, a=adapters: inner_products(a, k, backend="reference")],
            4.0,
            least=5,
            warm_up_s=0,
        )
        # one call warms up; on a machine that others use, this tells more than the wall clock
        processor = (time.process_time() - processor) / (timing.samples + 1)
        read = sum(layer.nbytes for layer in known.layers)
        kept = str(dtype).removeprefix("torch.")
        name = f"inner_products, {count} layers, rank {ADAPTER_RANK}, {kept}"
        detail = (
            f"median {timing.median_us / 1e6:.3f} s, fastest fifth {timing.p20_us / 1e6:.3f} s, "
            f"{processor:.2f} processor seconds a call, {timing.samples} calls: "
            f"{DIRECTIONS} directions of rank {DIRECTION_RANK}, "
            f"{read / 1e9:.2f} GB, {torch.get_num_threads()} threads"
        )
        bench.check(f"{name}: under {LIMIT_S:g} s", timing.median_us < LIMIT_S * 1e6, detail)
        print(f"{name}: {detail}", flush=True)
        del known, adapters
        bench.clean()
