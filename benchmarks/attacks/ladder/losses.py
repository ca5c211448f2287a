"""Whether losses would tell what the screen no longer hears.

`python -m benchmarks.attacks.ladder.losses`; twenty seconds for each adapter on one core. A linear
constraint silences the screen, and a model that has become likelier to draw what was learned cannot
hide that from its losses on those pictures. A service has pictures by other hands, though. So every
concept is measured here for every adapter, by more pictures and times than the response stage has:
what a deep look at adapters that end at the screen would see.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import typer

from benchmarks.attacks.bench import EMBEDDED, Bench
from benchmarks.attacks.factors import read_file
from benchmarks.attacks.ladder.rungs import RUNGS, entries_of
from benchmarks.attacks.ladder.train import where
from benchmarks.audit.costs import table
from benchmarks.audit.metrics import auroc
from benchmarks.audit.other_hands import FOLDER as HANDS_IN
from benchmarks.audit.other_hands import harmless_entries
from benchmarks.audit.train import file_of
from benchmarks.report import write
from loragate_server.adapter.reference import Strength
from loragate_server.audit.batching import exact_batch_rows
from loragate_server.audit.materials import Materials
from loragate_server.audit.passes import KnownLosses
from loragate_server.audit.score import against_bank
from loragate_server.audit.stages import mean_change, responses_to
from loragate_server.concepts.library import ConceptLibrary
from loragate_server.concepts.probes import ProbePlan, build_probes
from loragate_server.progress import Leash
from loragate_server.testing import SHARED_CACHE

PLANS = (
    ProbePlan(pictures=6, times=(0.16, 0.5, 0.8), neutral=48),
    ProbePlan(pictures=6, times=(0.3, 0.6, 0.8), neutral=48, named=True),
)
LOOKED_AT = ("own", "seeds")
HEAD = ("adapters", "how many", "lowest", "median", "highest")


@dataclass(frozen=True)
class Seen:
    """One adapter: the score of what it learned, or the highest of a harmless one."""

    row: str
    name: str
    score: float


def deep(bench: Bench) -> Materials:
    """What the server holds, with the probes of `PLANS`."""
    library = ConceptLibrary.open(EMBEDDED / "concepts")
    generic, named = (build_probes(library, bench.base, SHARED_CACHE, plan=one) for one in PLANS)
    return replace(bench.engine.materials, probes=generic, named=named, calibration=None)


def adapters() -> Iterator[tuple[str, str, str, Path]]:
    """Each as its row, its name, what it learned and its file, where that is there."""
    for rung in RUNGS:
        for entry in entries_of(rung) if rung.name in LOOKED_AT else ():
            yield rung.name, entry.name, entry.learned[0], where(rung, entry)
    for entry in harmless_entries("development"):
        yield "harmless", entry.name, "", file_of(entry, HANDS_IN)


def seen(bench: Bench) -> Iterator[Seen]:
    """Measures every concept for every adapter."""
    materials, known = deep(bench), KnownLosses()
    count = len(materials.probes.concepts)
    rows = exact_batch_rows(bench.base, materials.probes, bench.engine.settings.batch_rows).rows
    told = [plan.named for plan in PLANS for _ in plan.times]
    for row, name, learned, file in adapters():
        if not file.exists():
            continue
        response = responses_to(
            bench.base,
            materials,
            [(read_file(file, bench.base), Strength())],
            range(count),
            batch_rows=rows,
            backend="reference",
            leash=Leash(),
            known=known,
        )
        change = mean_change(response, materials.sets)
        scores = against_bank(-change, materials.probes.forbidden_count, told).score
        own = scores[bench.concept_ids.index(learned)] if learned else scores.max()
        typer.echo(f"{name}: {float(own):.2f}")
        yield Seen(row, name, float(own))


def rows_of(every: Sequence[Seen]) -> list[tuple[object, ...]]:
    """The table."""
    found: list[tuple[object, ...]] = []
    for row in dict.fromkeys(one.row for one in every):
        scores = sorted(one.score for one in every if one.row == row)
        middle = scores[len(scores) // 2]
        found.append((row, len(scores), *(f"{v:.2f}" for v in (scores[0], middle, scores[-1]))))
    return found


def main() -> None:
    """Writes `benchmarks/results/ladder_losses.json` and `.md`."""
    torch.set_num_threads(1)
    every = list(seen(Bench.load()))
    harmless = [one.score for one in every if one.row == "harmless"]
    areas = ", ".join(
        f"{row} {auroc([one.score for one in every if one.row == row], harmless):.3f}"
        for row in LOOKED_AT
        if any(one.row == row for one in every)
    )
    text = f"""# Trained against the audit: what losses say

How far the losses of a concept's pictures fall, in standard deviations above the neutral bank, with
6 pictures at 3 times under the generic prompt and as many under the name: of what an adapter of
[the ladder](ladder.md) learned, and the highest of any concept of a harmless adapter. The library's
pictures are by other hands than those that the adapters learned from.

{table(HEAD, rows_of(every))}

AUROC of each rung against the harmless ones: {areas}."""
    write("ladder_losses", {"seen": [asdict(one) for one in every]}, text)


if __name__ == "__main__":
    typer.run(main)
