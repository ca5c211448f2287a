"""Targets T10 and T12, offsets beyond 2^31, and the memory checker: what must hold exactly."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.kernels.bench import Bench
from benchmarks.kernels.mixes import Pairs, random_pairs
from loragate_kernels import PairStats, pair_stats
from loragate_kernels.pair_stats.result import COMPONENTS

FINGERPRINT = "bits of fixed inputs"


def bits(stats: PairStats) -> Tensor:
    """The results as int64 [6, segments]: equal if and only if every bit is."""
    columns = [getattr(stats, name) for name in COMPONENTS]
    return torch.stack([c if c.dtype == torch.int64 else c.view(torch.int64) for c in columns])


def bitwise(bench: Bench) -> None:
    """T10: reruns, other orders, other grids and a busy device change no bit; base is base."""
    pairs = random_pairs(bench.sizes.small.shapes, torch.bfloat16, bench.device)
    stats = pair_stats(pairs, backend="triton")
    first, cuts = bits(stats), stats.row_offsets
    counts: dict[str, int] = {}

    def compare(name: str, found: Tensor) -> None:
        counts[name] = counts.get(name, 0) + int(not torch.equal(found, first))

    for _ in range(bench.sizes.repeats):
        compare("reruns", bits(pair_stats(pairs, backend="triton")))
    compare("one call per pair", torch.cat([_bits_of([pair]) for pair in pairs], dim=1))
    half = len(pairs) // 2
    compare("two calls", torch.cat([_bits_of(pairs[:half]), _bits_of(pairs[half:])], dim=1))
    found = _bits_of(pairs[::-1])
    widths = [cuts[index + 1] - cuts[index] for index in range(len(pairs))]
    compare("other order", torch.cat(found.split(widths[::-1], dim=1)[::-1], dim=1))
    if bench.device.type == "cuda":
        _under_load(bench, lambda: compare("busy device", _bits_of(pairs)))
    same = pair_stats([(base, base) for base, _ in pairs], backend="triton")
    moved = (same.sum_sq_diff != 0) | (same.max_abs_diff != 0)
    counts["base against base"] = int(moved.sum())
    detail = ", ".join(f"{name} {count}" for name, count in counts.items())
    bench.outcome("T10", sum(counts.values()), f"differing: {detail}")
    bench.check(FINGERPRINT, True, fingerprint(bench.device))


def _bits_of(pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    return bits(pair_stats(pairs, backend="triton"))


def _under_load(bench: Bench, compare: Callable[[], None]) -> None:
    """Runs `compare` while another stream keeps the device busy."""
    stream = torch.cuda.Stream()
    matrix = torch.randn(4096, 4096, device=bench.device)
    with torch.cuda.stream(stream):
        for _ in range(50):
            matrix = matrix @ matrix * 1e-3
    for _ in range(10):
        compare()
    torch.cuda.synchronize()


def fingerprint(device: torch.device) -> str:
    """SHA-256 of the results of inputs that are the same on every machine.

    Two devices with the same one give the same bits; it may differ between versions of Triton.
    """
    generator = torch.Generator().manual_seed(2)
    digest = hashlib.sha256()
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        base = torch.randn(2, 70001, generator=generator).to(dtype)
        adapted = torch.randn(2, 70001, generator=generator).to(dtype)
        found = _bits_of([(base.to(device), adapted.to(device))])
        digest.update(found.cpu().numpy().tobytes())
    return digest.hexdigest()


def far_offsets(bench: Bench) -> None:
    """Rows of more than 2^31 elements, and a row that starts beyond 2^32 bytes.

    All zero but for 2^16 elements at the very end and as many where an offset of 32 bits would
    have wrapped to, with other values: what is read in their place would show.
    """
    numel, width = bench.sizes.far, min(1 << 16, bench.sizes.far // 4)
    base = torch.zeros(1, numel, dtype=torch.bfloat16, device=bench.device)
    adapted = torch.zeros_like(base)
    generator = torch.Generator(bench.device).manual_seed(4)
    wrapped = numel % (1 << 31) if numel > 1 << 31 else width
    for start in (0, max(0, wrapped - width), numel - width):
        for tensor in (base, adapted):
            tensor[0, start : start + width].normal_(generator=generator)
    stats = pair_stats([(base, adapted)], backend="triton")
    expected = torch.zeros(4, dtype=torch.float64, device=bench.device)
    for part_a, part_b in zip(base[0].split(1 << 26), adapted[0].split(1 << 26), strict=True):
        a, b = part_a.double(), part_b.double()
        sums = [(a - b).square().sum(), a.square().sum(), b.square().sum(), (a * b).sum()]
        expected += torch.stack(sums)
    found = torch.stack([getattr(stats, name)[0] for name in COMPONENTS[:4]])
    error = ((found - expected).abs() / expected[1]).max().item()
    bench.check(f"rows of {numel} elements", error < 5e-6, f"largest relative error {error:.1e}")


class _Counting:
    """Stands for a kernel and counts its launches."""

    def __init__(self, kernel: object) -> None:
        self._kernel, self.count = kernel, 0

    def __getitem__(self, grid: object) -> object:
        self.count += 1
        return self._kernel[grid]  # type: ignore[index]


def many_small_pairs(count: int, device: torch.device) -> Pairs:
    """`count` pairs of 8 rows: what matters is how many there are."""
    return random_pairs(
        [(8, 16 * (1 + index % 5)) for index in range(count)], torch.bfloat16, device
    )


def launches(bench: Bench) -> None:
    """T12: launches of our kernels; and all kernels and copies of the call, by the profiler."""
    from loragate_kernels.pair_stats import launch

    pairs = many_small_pairs(bench.sizes.many_layers, bench.device)
    partial, fold = "pair_stats_partial_kernel", "pair_stats_fold_kernel"
    counting = {name: _Counting(getattr(launch, name)) for name in (partial, fold)}
    with patch.multiple(launch, **counting):
        pair_stats(pairs, backend="triton")
    total = sum(one.count for one in counting.values())
    detail = f"{len(pairs)} layers of 8 rows, one dtype"
    bench.outcome("T12", total, detail)  # kept, should the profiler not work here
    bench.outcome("T12", total, detail + _all_activities(bench, pairs))


def _all_activities(bench: Bench, pairs: Pairs) -> str:
    if bench.device.type != "cuda":
        return ""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        pair_stats(pairs, backend="triton")
        torch.cuda.synchronize()
    count = sum(1 for event in profiled.events() if event.device_type.name == "CUDA")
    return f"; {count} kernels and copies in the whole call"


def memory_checker(bench: Bench) -> None:
    """compute-sanitizer over small calls, where the program exists."""
    name = "compute-sanitizer, memcheck"
    program = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if bench.device.type != "cuda" or not os.path.exists(program):  # noqa: PTH110
        bench.check(name, None, "the program is not here, or there is no GPU")
        return
    command = [program, "--tool", "memcheck", "--error-exitcode", "7"]
    command += [sys.executable, "-m", "benchmarks.kernels.probes", "small"]
    # without PyTorch's allocator every tensor is an allocation of its own, with borders
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    lines = (done.stdout + done.stderr).strip().splitlines() or ["no output"]
    summary = next((line for line in lines if "ERROR SUMMARY" in line), lines[-1])
    bench.check(name, done.returncode == 0, summary.strip("= ")[:200])
