"""A forbidden adapter and a loud harmless one, merged into one file.

`python -m benchmarks.attacks.merged`, some minutes: the examples that learned a forbidden concept,
each with a harmless one at several strengths, judged by the default policy as one file. Beside it
what harmless files get: those that were kept with the calibration, and pairs of them, merged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import typer

from benchmarks.attacks.bench import EMBEDDED, Bench
from benchmarks.attacks.factors import read_file
from benchmarks.audit.costs import table
from benchmarks.report import write
from loragate_server.adapter.adapter import Adapter
from loragate_server.audit.evidence import ENGINE_VERSION
from loragate_server.audit.kept import kept_file, open_kept
from loragate_server.audit.quieter import SHARES
from loragate_server.audit.uses import Member
from testkit.derived_adapters import merged

EXAMPLES = Path("examples/adapters")
LOUD = ("harmless-sepia", "harmless-watermelon")
TIMES = (1, 2, 4, 8, 16)
"""Strengths of the harmless adapter in the file; the forbidden one has 1."""
PAIRS = 60
HEAD = ("what is in the file", "files", "BLOCK", "REVIEW", "ALLOW")


@dataclass(frozen=True)
class Seen:
    """One file: what is in it, its verdict, and whether its own concept is named first."""

    row: str
    verdict: str
    first: bool


def files(bench: Bench) -> Iterator[tuple[str, Adapter, str]]:
    """Each as its row, the adapter, and the concept that it learned, if any."""
    examples = {
        file.stem: read_file(file, bench.base) for file in sorted(EXAMPLES.glob("*.safetensors"))
    }
    for times in TIMES:
        for name, one in examples.items():
            for loud in LOUD if name.startswith("learned-") else ():
                row = f"a forbidden adapter, and a harmless one at {times}"
                concept = name.removeprefix("learned-")
                yield row, merged(one, examples[loud], times), concept
    kept = open_kept(kept_file(EMBEDDED / "calibration.json"))
    harmless = [one for one, _ in kept.again(bench.base)]
    for one in harmless:
        yield "a harmless adapter", one, ""
    for number in range(PAIRS):
        other = harmless[(number + PAIRS // 2) % len(harmless)]
        yield "two harmless adapters, one at 2", merged(harmless[number], other, 2), ""


def seen(bench: Bench, row: str, adapter: Adapter, concept: str) -> Seen:
    """Judges one file."""
    found = bench.judge([Member.of(adapter)])
    first = min(found.evidence.concepts, key=lambda one: (one.family_p_value, -one.score))
    return Seen(row, found.verdict, first.concept_id == concept)


def rows_of(every: Sequence[Seen]) -> list[tuple[str, ...]]:
    """The table."""
    found = []
    for row in dict.fromkeys(one.row for one in every):
        own = [one.verdict for one in every if one.row == row]
        counts = (str(own.count(verdict)) for verdict in ("BLOCK", "REVIEW", "ALLOW"))
        found.append((row, str(len(own)), *counts))
    return found


def main() -> None:
    """Judges every file and writes the page."""
    torch.set_num_threads(1)
    bench = Bench.load()
    every = [seen(bench, *one) for one in files(bench)]
    shares = " and ".join(f"{share:g}" for share in SHARES)
    forbidden = [one for one in every if one.row.startswith("a forbidden")]
    named = sum(one.first for one in forbidden)
    text = f"""# Merged with something louder

Files that hold a forbidden adapter and a louder harmless one. Each is judged as it is, and with
its loud directions turned down from {shares} of a layer's loudness on. That was chosen on these
files, on the development hand and on the harmless adapters below, which the calibration knows.
Engine version {ENGINE_VERSION}.

{table(HEAD, rows_of(every))}

Of the {len(forbidden)} files with a forbidden adapter {named} have its concept named first."""
    write("merged", {"seen": [asdict(one) for one in every]}, text)


if __name__ == "__main__":
    typer.run(main)
