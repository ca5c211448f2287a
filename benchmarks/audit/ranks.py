"""What the screen loses when concept gradients are kept at a low rank, and what it saves.

`python -m benchmarks.audit.ranks` after `train`. The highest rank is that of the widest attention
layer: there nothing is cut away.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import torch
import typer

from benchmarks.audit.data import CORE
from benchmarks.audit.derive import Subject, plain_subjects
from benchmarks.audit.measure import Workbench, workbench
from benchmarks.audit.metrics import above, auroc, threshold_at
from loragate_server.audit.screen import hear, screen
from loragate_server.concepts.gradients import ConceptGradients, restricted

FILE = Path("build/zoo-ranks.json")
FULL = 96
RANKS = (FULL, 32, 16, 8, 4, 2, 1)


def subjects_of(family: str) -> list[Subject]:
    """The development split of one family: the rank is chosen on it."""
    return [s for s in plain_subjects() if (s.family, s.split) == (family, "development")]


def quality_at(bench: Workbench, gradients: ConceptGradients) -> dict[str, float]:
    """Error rates and time of the screen with these gradients."""
    hits, others, highest, spent_s = [], [], [], 0.0
    for family in ("concept", "harmless"):
        for subject in subjects_of(family):
            adaptation = subject.read(bench.base)
            began = time.perf_counter()
            found = screen(bench.base, gradients, adaptation, "reference")
            scores = hear(found, gradients, bench.forbidden).scores.score.tolist()
            spent_s += time.perf_counter() - began
            by_id = dict(zip(bench.ids, scores, strict=False))
            own = set(subject.learned)
            hits += [by_id[concept] for concept in own]
            others += [by_id[concept] for concept in CORE if concept not in own]
            if not own:
                highest.append(max(by_id[concept] for concept in CORE))
    rate = above(hits, threshold_at(highest, 0.01))
    return {
        "rank": gradients.plan.rank,
        "megabytes": gradients.nbytes / 1e6,
        "pair_auroc": auroc(hits, others),
        "adapter_auroc": auroc(hits, highest),
        "found": rate.hits,
        "of": rate.total,
        "lowest_learned": min(hits),
        "highest_harmless": max(highest),
        "screen_ms": 1000 * spent_s / (len(highest) + len(hits)),
    }


def main() -> None:
    """Writes `build/zoo-ranks.json`."""
    torch.set_num_threads(2)
    bench = workbench(FULL)
    rows = []
    for rank in RANKS:
        gradients = bench.gradients if rank == FULL else restricted(bench.gradients, rank)
        rows.append(quality_at(bench, gradients))
        typer.echo(rows[-1])
    FILE.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
