"""What a line of the decision log costs, with a tree over the log and without: time, bytes, fsyncs.

    python -m benchmarks.log_cost --lines 2000

Lines are as long as those of real decisions. A checkpoint is made after every `--every` lines, as
the thread of a server would in the same time; what it costs is told apart from what a line costs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from loragate_server.record.log import DecisionLog
from testkit.checkpoints import open_tree_log

LINE_BYTES = 24_000
"""As a decision about one adapter on the embedded library has."""


@dataclass(frozen=True)
class Cost:
    """Of one line, or of one checkpoint: median time, and means."""

    microseconds: float
    fsyncs: float
    bytes: float


@contextmanager
def counted_fsyncs() -> Iterator[list[int]]:
    """Counts calls of `os.fsync` inside the block."""
    count, real = [0], os.fsync

    def fsync(descriptor: int) -> None:
        count[0] += 1
        real(descriptor)

    os.fsync = fsync
    try:
        yield count
    finally:
        os.fsync = real


def measure(folder: Path, lines: int, every: int, *, tree: bool) -> tuple[Cost, Cost | None]:
    """The cost of a line, and of a checkpoint where there is a tree."""
    folder.mkdir()
    keeper = None
    if tree:
        keeper, log = open_tree_log(folder)
    else:
        log = DecisionLog(folder / "decisions.jsonl")
    verdict = {"decision_id": "0" * 32, "filler": "x" * LINE_BYTES}
    appended: list[tuple[float, int]] = []
    made: list[tuple[float, int]] = []
    with counted_fsyncs() as fsyncs:

        def timed(into: list[tuple[float, int]], work: Callable[[], object]) -> None:
            before, began = fsyncs[0], time.perf_counter()
            work()
            into.append((time.perf_counter() - began, fsyncs[0] - before))

        for number in range(1, lines + 1):
            timed(appended, lambda: log.append_decision(verdict, binding=True))
            if keeper is not None and number % every == 0:
                timed(made, keeper.make)
    log.close()
    log_bytes = (folder / "decisions.jsonl").stat().st_size
    tree_bytes = sum(
        file.stat().st_size
        for file in (folder / "decisions.jsonl.tree").rglob("*")
        if file.is_file()
    )
    return _cost(appended, log_bytes), _cost(made, tree_bytes) if made else None


def _cost(runs: list[tuple[float, int]], size: int) -> Cost:
    seconds = [second for second, _ in runs]
    fsyncs = [count for _, count in runs]
    return Cost(1e6 * statistics.median(seconds), statistics.fmean(fsyncs), size / len(runs))


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lines", type=int, default=2000)
    parser.add_argument("--every", type=int, default=100)
    parser.add_argument("--folder", type=Path, help="on the disk that is meant")
    chosen = parser.parse_args()
    print("| | median | fsyncs | bytes |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir=chosen.folder) as name:
        for tree in (False, True):
            line, checkpoint = measure(Path(name, str(tree)), chosen.lines, chosen.every, tree=tree)
            rows = {f"a line, {'with' if tree else 'without'} a tree": line}
            if checkpoint is not None:
                rows[f"a checkpoint of {chosen.every} lines"] = checkpoint
            for what, cost in rows.items():
                print(
                    f"| {what} | {cost.microseconds:.0f} µs | {cost.fsyncs:.1f} "
                    f"| {cost.bytes:.0f} |"
                )


if __name__ == "__main__":
    main()
