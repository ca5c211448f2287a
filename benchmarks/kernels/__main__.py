"""Command line of the kernel benchmarks; needs nothing but torch and Triton."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.kernels.bench import Bench, real_sizes, rehearsal_sizes
from benchmarks.kernels.record import RESULTS, load, newest, render, save

SECONDS = 500.0
"""Of the whole run: whatever has not begun by then is noted as not run."""

REPORT = "kernels.md"


def run_gpu(bench: Bench) -> None:
    """Every measure on a GPU, or in a rehearsal, in the order of what is missed most.

    The compiler and the memory checker take longest and come last.
    """
    from benchmarks.kernels import measure_correct, measure_exact, measure_service, measure_speed

    def attempt_all(*parts: tuple[str, float, Callable[[Bench], None]]) -> None:
        for what, seconds, part in parts:
            bench.attempt(what, seconds, lambda part=part: part(bench))

    attempt_all(
        ("correctness", 60, measure_correct.against_reference),
        ("ceilings, T1, T2", 90, measure_speed.bandwidth),
    )
    measure_speed.mixes(bench)
    attempt_all(
        ("T4, whole calls", 60, measure_speed.whole_calls),
        ("T10", 30, measure_exact.bitwise),
        ("T12", 30, measure_exact.launches),
        ("T8", 60, measure_service.capture),
        ("T9", 100, measure_service.warm_up),
        ("offsets beyond 2^31", 30, measure_exact.far_offsets),
    )
    if bench.run.mode == "gpu":
        measure_speed.compiler(bench)
    attempt_all(("memory checker", 100, measure_exact.memory_checker))


def run_cpu(bench: Bench) -> None:
    """The small version."""
    from benchmarks.kernels import measure_cpu

    bench.run.notes.append("torch.compile was not run: nothing compiles where audits use the CPU")
    wall, processor = time.monotonic(), time.process_time()
    for what, part in (
        ("pair_stats, float32", measure_cpu.pairs),
        ("pair_stats, bfloat16", measure_cpu.narrow_pairs),
        ("inner_products", measure_cpu.directions),
    ):
        bench.attempt(what, 120, lambda part=part: part(bench))
    share = (time.process_time() - processor) / (time.monotonic() - wall)
    bench.run.facts["processors_had"] = f"{share:.2f}"  # less than one: others had the rest


def measure(rehearse: bool, results: Path, seconds: float) -> None:
    """Measures what this machine can, appends it to `results` and writes the table beside it."""
    began = time.monotonic()
    gpu = torch.cuda.is_available() and not rehearse
    mode = "gpu" if gpu else "rehearsal" if rehearse else "cpu"
    memory = torch.cuda.get_device_properties(0).total_memory if gpu else 0
    sizes = real_sizes(memory) if gpu else rehearsal_sizes()
    bench = Bench(mode, torch.device("cuda:0" if gpu else "cpu"), sizes, results, seconds)
    if mode == "cpu":
        run_cpu(bench)
    else:
        run_gpu(bench)
    if gpu:
        from benchmarks.kernels.hardware import driver_facts

        bench.run.facts |= {f"after_{name}": value for name, value in driver_facts().items()}
    bench.run.facts["seconds"] = f"{time.monotonic() - began:.0f}"
    save(bench.run, results)
    if not rehearse:
        results.with_name(REPORT).write_text(report(results))
    print(render(bench.run))


def report(results: Path) -> str:
    """The newest run of every device in Markdown."""
    runs = [run for run in newest(load(results)) if run.mode != "rehearsal"]
    return "\n".join(render(run) for run in runs)


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels")
    verbs = ("run", "rehearse", "table", "plot")
    parser.add_argument("verb", nargs="?", choices=verbs, default="run")
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON file to append to")
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help="what has not begun by then is left out"
    )
    arguments = parser.parse_args()
    if arguments.verb == "plot":
        from benchmarks.kernels.plot import draw

        for path in draw(load(arguments.results)):
            print(path)
    elif arguments.verb == "table":
        print(report(arguments.results))
    else:
        rehearse = arguments.verb == "rehearse"
        if rehearse:
            # Triton reads this when it is first imported, and nothing has imported it yet
            os.environ["TRITON_INTERPRET"] = "1"
        measure(rehearse, arguments.results, arguments.seconds)


if __name__ == "__main__":
    main()
