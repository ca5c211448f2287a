"""What measures share: device, sizes, the clock that ends everything, and where results go."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from benchmarks.kernels import hardware, pair_providers
from benchmarks.kernels.mixes import Layer, Mix, mix, random_pairs
from benchmarks.kernels.record import Check, Row, Run, save
from benchmarks.kernels.registry import provider
from benchmarks.kernels.targets import Outcome
from benchmarks.kernels.timing import Timing, time_graph, time_limit, time_wall


@dataclass(frozen=True)
class Sizes:
    """How large the cases are.

    Attributes:
        flat_rows: rows of 8 of `flat_numel` elements on each side: about 8 GB in all.
        flat_numel: elements of such a row.
        large: layer mix of about 1 GB.
        small: layer mix of about 100 MB.
        others: further mixes to time ours and the eager ones on.
        one_layer: a single large layer.
        many_layers: layers of the launch count.
        repeats: how often equal bits are asked for.
        far: elements per row of the check of large offsets.
    """

    flat_rows: int
    flat_numel: int
    large: Mix
    small: Mix
    others: tuple[Mix, ...]
    one_layer: Mix
    many_layers: int
    repeats: int
    far: int


def real_sizes(memory_bytes: int) -> Sizes:
    """For a GPU: 8 GB of pairs (59 rows of 8 on each side), or a tenth of a smaller memory."""
    flat_numel = 1 << 22
    return Sizes(
        flat_rows=max(1, min(59, memory_bytes // 10 // (2 * 8 * 2 * flat_numel))),
        flat_numel=flat_numel,
        large=mix("sdxl", 2),
        small=mix("sd15", 1),
        others=(mix("sd3", 1), mix("flux", 1)),
        one_layer=Mix("one layer of flux x 4", (Layer("one", (4096, 3072), 1),), 4),
        many_layers=500,
        repeats=50,
        far=(1 << 31) + (1 << 20) + 24,
    )


def rehearsal_sizes() -> Sizes:
    """So small that Triton's interpreter is done in a minute."""
    tiny = Mix("tiny x 2", (Layer("a", (40, 64), 2), Layer("b", (6, 6, 6), 1)), 2)
    return Sizes(
        flat_rows=1,
        flat_numel=1 << 14,
        large=tiny,
        small=tiny.head(2),
        others=(),
        one_layer=tiny.head(1),
        many_layers=12,
        repeats=2,
        far=1 << 16,
    )


class Bench:
    """One run in progress.

    Attributes:
        device: where operands live.
        sizes: how large they are.
        run: what was measured so far.
        path: where it is saved after every measure.
    """

    def __init__(
        self, mode: str, device: torch.device, sizes: Sizes, path: Path, seconds: float
    ) -> None:
        self.device, self.sizes, self.path = device, sizes, path
        self.run = Run(mode, hardware.facts(device))
        self.backend = "reference" if mode == "cpu" else "triton"
        self.peak = hardware.datasheet_gbps(self.run.facts["device"])
        self._deadline = time.monotonic() + seconds

    @property
    def remaining(self) -> float:
        """Seconds left for everything that follows."""
        return self._deadline - time.monotonic()

    def attempt(self, what: str, seconds: float, part: Callable[[], None]) -> None:
        """Runs one part of the run: what goes wrong in it is noted and ends this part alone."""
        limit = min(seconds, self.remaining)
        began = time.monotonic()
        try:
            if limit < 2:
                raise TimeoutError("not run, the time was up")
            with time_limit(limit):
                part()
        except Exception as error:
            self.note(what, error)
        print(f"{what}: {time.monotonic() - began:.1f} s", flush=True)
        self.clean()
        save(self.run, self.path)

    def note(self, what: str, error: Exception) -> None:
        """Keeps what went wrong, in one line."""
        text = str(error).strip().splitlines() or [""]
        self.run.notes.append(f"{what}: {type(error).__name__}: {text[0][:300]}")
        print(self.run.notes[-1], flush=True)

    def clean(self) -> None:
        """Gives memory back before the next part."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            torch.cuda.empty_cache()

    def outcome(self, target: str, value: float | None, detail: str = "") -> None:
        """Notes what a target came to."""
        self.run.outcomes = [one for one in self.run.outcomes if one.id != target]
        self.run.outcomes.append(Outcome(target, value, detail))

    def check(self, name: str, holds: bool | None, detail: str) -> None:
        """Notes whether something holds."""
        self.run.checks.append(Check(name, holds, detail))

    def time(self, calls: Sequence[Callable[[], object]], how: str) -> Timing:
        """Times calls that differ in their inputs; a rehearsal times one of each."""
        if self.run.mode == "rehearsal":
            return replace(time_wall(calls, 0, least=1, most=1, warm_up_s=0), how=how)
        if how == "graph":
            return time_graph(calls)
        return time_wall(calls)

    def copies(self, case_bytes: int) -> int:
        """How many sets of inputs to rotate over."""
        few = self.run.mode == "rehearsal"
        return 2 if few else hardware.copies_needed(case_bytes, self.device)

    def add_row(
        self,
        op: str,
        name: str,
        case: str,
        dtype: torch.dtype,
        timing: Timing,
        useful: int,
        traffic: int,
    ) -> Row:
        """Notes a timing. GB/s are those of useful bytes, and none where they are impossible."""
        rate = hardware.printable_gbps(useful, timing.median_us, self.peak)
        read = self.run.ceilings.get("read-only sum")
        row = Row(
            op,
            name,
            case,
            str(dtype).removeprefix("torch."),
            timing.how,
            timing.median_us,
            timing.p20_us,
            timing.p80_us,
            timing.samples,
            useful,
            traffic,
            rate,
            None if read is None or rate is None else rate / read,
        )
        self.run.rows.append(row)
        if rate is None:
            self.run.notes.append(f"{name} on {case}: more than the datasheet allows, not printed")
        return row

    def time_pairs(
        self, case: Mix, names: Sequence[str], how: str, dtype: torch.dtype = torch.bfloat16
    ) -> None:
        """Times providers of `pair_stats` on one mix, all on the same inputs.

        One that fails is noted and costs none of the others.
        """
        count = self.copies(case.pair_bytes(dtype))
        sets = [random_pairs(case.shapes, dtype, self.device, seed) for seed in range(count)]
        useful = pair_providers.useful_bytes(sets[0])
        for name in names:
            one = provider(pair_providers.OP, name)
            try:
                timing = self.time([one.prepare(pairs) for pairs in sets], how)
            except TimeoutError:
                raise
            except Exception as error:
                self.note(f"{name} on {case.name}", error)
            else:
                traffic = one.traffic(sets[0])
                self.add_row(one.op, name, case.name, dtype, timing, useful, traffic)
            self.clean()


def speed_up(bench: Bench, slow: str, fast: str, case: Mix, how: str) -> tuple[float | None, str]:
    """How many times faster `fast` is than `slow` on that mix; None unless both were timed."""
    left, right = bench.run.row(slow, case.name, how), bench.run.row(fast, case.name, how)
    if left is None or right is None:
        return None, f"{slow} or {fast} was not timed on {case.name}"
    ratio = left.median_us / right.median_us
    return ratio, f"{case.name}, {how}: {left.median_us:.1f} µs over {right.median_us:.1f} µs"
