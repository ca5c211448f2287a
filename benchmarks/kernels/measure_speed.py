"""Ceilings, and targets T1 to T7: `pair_stats` against the memory and against alternatives."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.kernels import hardware
from benchmarks.kernels.bench import Bench, speed_up
from benchmarks.kernels.mixes import Mix, Pairs
from benchmarks.kernels.pair_providers import (
    BEST,
    CORRECT,
    EACH,
    FOREACH,
    IDIOMATIC,
    LIST,
    OP,
    OURS,
    SCALAR,
    WHOLE,
    PreparedPairStats,
    prepared_traffic,
    useful_bytes,
)
from benchmarks.kernels.timing import Timing

READ, COPY = "read-only sum", "torch.clone"
FLAT_ROWS = 8
PART_OF_T2 = (3300, 3400)
"""GB/s in the datasheet of the part that T2 was set for."""


def flat_pairs(flat: Tensor, numel: int) -> Pairs:
    """Pairs of [8, numel] that lie side by side in `flat` and cover it."""
    views = flat.view(-1, 2, FLAT_ROWS, numel)
    return [(view[0], view[1]) for view in views]


def _flat(bench: Bench, seed: int) -> Tensor:
    sizes = bench.sizes
    count = sizes.flat_rows * 2 * FLAT_ROWS * sizes.flat_numel
    flat = torch.empty(count, dtype=torch.bfloat16, device=bench.device)
    generator = torch.Generator(bench.device).manual_seed(seed)
    for part in flat.split(1 << 28):
        part.normal_(generator=generator)
    return flat


def bandwidth(bench: Bench) -> None:
    """Ceilings, then T1 and T2, over the same memory."""
    flats = [_flat(bench, seed) for seed in range(2)]
    read = _read_ceiling(bench, flats)
    half = [flat[: len(flat) // 2] for flat in flats]
    copied = bench.time([half[0].clone, half[1].clone], "graph")
    bench.run.ceilings[READ] = hardware.gbps(flats[0].nbytes, read.median_us, bench.peak)
    bench.run.ceilings[COPY] = hardware.gbps(2 * half[0].nbytes, copied.median_us, bench.peak)
    sets = [flat_pairs(flat, bench.sizes.flat_numel) for flat in flats]
    timing = bench.time([PreparedPairStats(pairs) for pairs in sets], "graph")
    useful, traffic = useful_bytes(sets[0]), prepared_traffic(sets[0])
    row = bench.add_row(
        OP, OURS, f"{useful / 1e9:.0f} GB of pairs", torch.bfloat16, timing, useful, traffic
    )
    if row.gbps is None:
        return
    how = f"{row.gbps:.0f} of {bench.run.ceilings[READ]:.0f} GB/s, spread {timing.spread:.1%}"
    bench.outcome("T1", 100 * row.gbps / bench.run.ceilings[READ], how)
    low, high = PART_OF_T2
    value = row.gbps / 1e3 if low < (bench.peak or 0) < high else None
    bench.outcome("T2", value, "" if value else f"another part: {bench.run.facts['device']}")


def _read_ceiling(bench: Bench, flats: list[Tensor]) -> Timing:
    """The fastest of several shapes of the read-only sum, checked before it is believed."""
    from benchmarks.kernels.yardstick_kernels import READ_SUM_CHOICES, read_sum

    usable = [one for one in READ_SUM_CHOICES if len(flats[0]) % one[1] == 0]
    if bench.run.mode == "rehearsal":
        usable = usable[:1]
    best: Timing | None = None
    for choice in usable:
        found = read_sum(flats[0], choice)
        expected = flats[0].view(-1, choice[1]).sum(1, dtype=torch.float32)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-1)
        timing = bench.time([lambda f=flat, c=choice: read_sum(f, c) for flat in flats], "graph")
        if best is None or timing.median_us < best.median_us:
            best, chosen = timing, choice
    if best is None:
        raise ValueError(f"no shape of the read-only sum divides {len(flats[0])} elements")
    bench.run.notes.append(f"read-only sum: block, chunk, warps {chosen}")
    return best


def mixes(bench: Bench) -> None:
    """All providers that need no compiler, device time, on every mix; T3, T5, T7."""
    sizes = bench.sizes
    for case in (sizes.small, sizes.large, *sizes.others, sizes.one_layer):
        bench.attempt(
            f"mix {case.name}, graphs",
            60,
            lambda case=case: bench.time_pairs(
                case, (OURS, IDIOMATIC, CORRECT, BEST, FOREACH, SCALAR), "graph"
            ),
        )
    for target, case in (("T3a", sizes.large), ("T3b", sizes.small)):
        row = bench.run.row(OURS, case.name, "graph")
        if row is not None and row.of_ceiling is not None:
            detail = f"{case.name}, {row.useful_bytes / 1e6:.0f} MB in {row.median_us:.1f} µs"
            bench.outcome(target, 100 * row.of_ceiling, detail)
    bench.outcome("T5a", *speed_up(bench, BEST, OURS, sizes.large, "graph"))
    bench.outcome("T5b", *speed_up(bench, FOREACH, OURS, sizes.large, "graph"))
    bench.outcome("T7", *speed_up(bench, SCALAR, OURS, sizes.large, "graph"))


def whole_calls(bench: Bench) -> None:
    """What a caller waits for, work on the host included; T4."""
    names = (WHOLE, CORRECT, BEST, FOREACH)
    for case in (bench.sizes.small, bench.sizes.large):
        bench.time_pairs(case, names, "wall")
    ratio, detail = speed_up(bench, CORRECT, WHOLE, bench.sizes.large, "wall")
    small, also = speed_up(bench, CORRECT, WHOLE, bench.sizes.small, "wall")
    bench.outcome("T4", ratio, detail + (f"; {small:.3g} x on {also}" if small else ""))


def compiler(bench: Bench) -> None:
    """torch.compile, per shape and for the whole list; T6. The slowest part, so the last."""
    sizes = bench.sizes

    def timed(case: Mix, name: str, seconds: float) -> None:
        bench.attempt(
            f"{name} on {case.name}", seconds, lambda: bench.time_pairs(case, (name,), "graph")
        )

    timed(sizes.one_layer, EACH, 60)
    bench.outcome("T6a", *speed_up(bench, EACH, OURS, sizes.one_layer, "graph"))
    timed(sizes.large, EACH, 60)
    timed(sizes.small, LIST, 90)
    timed(sizes.large, LIST, 120)
    ratios = [
        (ratio, f"{name}: {detail}")
        for name in (EACH, LIST)
        for case in (sizes.large,)
        for ratio, detail in [speed_up(bench, name, OURS, case, "graph")]
        if ratio is not None
    ]
    if ratios:
        # against whichever a user would have been better off with
        bench.outcome("T6b", *min(ratios))
