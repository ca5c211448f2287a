"""Blind baselines: what may say nothing about concepts must find none.

`python -m benchmarks.audit.blind` after `python -m benchmarks.audit.other_hands`. A detector that
is shown another concept's pictures, and a classifier that sees norm, rank and size alone, should be
no better than chance; else the zoo gives its labels away by how its adapters were trained
(arXiv 2406.16201).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from statistics import fmean

import numpy as np
import torch
import typer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.attacks.bench import Bench
from benchmarks.attacks.factors import read_file
from benchmarks.audit.costs import table
from benchmarks.audit.metrics import auroc
from benchmarks.audit.other_hands import FOLDER, HANDS, entries
from benchmarks.audit.train import file_of
from benchmarks.report import write
from loragate_server.adapter.reference import Strength
from loragate_server.audit.screen import screen
from loragate_server.audit.stages import Screened
from loragate_server.models.apply import layer_shape

REPEATS = 1000


@dataclass(frozen=True)
class Looked:
    """One adapter: by concept how far it stands out, and what is seen without any picture."""

    learned: int | None
    standings: Sequence[float]
    features: Sequence[float]


def look(bench: Bench) -> list[Looked]:
    """Screens every adapter by other hands."""
    made = bench.engine.materials.calibration
    assert made is not None
    entrance = made.at(bench.policy.screen_miss_rate).entrance
    modules = bench.base.adaptable_modules()
    found = []
    for entry in (one for part in HANDS for one in entries(part)):
        file = file_of(entry, FOLDER)
        adapter = read_file(file, bench.base)
        screened = screen(bench.base, bench.gradients, [(adapter, Strength())], "reference")
        wanted = range(len(bench.concept_ids))
        seen = Screened.of(screened, bench.gradients, wanted, made.scales)
        norms = [
            float(delta.dense(layer_shape(modules[ref.component, ref.module]), 1.0).norm())
            for ref, delta in adapter.deltas.items()
        ]
        learned = bench.concept_ids.index(entry.learned[0]) if entry.learned else None
        facts = (log(sum(n * n for n in norms)), log(max(norms)), float(np.std(np.log(norms))))
        features = (*facts, entry.recipe.rank, entry.recipe.alpha, file.stat().st_size)
        found.append(
            Looked(
                learned,
                [together for _, together in entrance.standing.values(seen.screening)],
                [*map(float, features)],
            )
        )
    return found


def own(looked: Sequence[Looked], shift: int) -> float:
    """AUROC by concept, averaged, where every detector is shown the `shift`-th next concept."""
    harmless = [one for one in looked if one.learned is None]
    count = len(looked[0].standings)
    values = []
    for concept in range(count):
        shown = (concept + shift) % count
        positive = [one.standings[shown] for one in looked if one.learned == concept]
        if positive:
            values.append(auroc(positive, [one.standings[shown] for one in harmless]))
    return fmean(values)


def without_pictures(looked: Sequence[Looked]) -> tuple[float, float]:
    """Cross-validated AUROC of a logistic regression, and its 95 % point under shuffled labels."""
    features = np.array([one.features for one in looked])
    labels = np.array([one.learned is not None for one in looked])
    rng = np.random.default_rng(0)

    def score(wanted: np.ndarray) -> float:
        folds = StratifiedKFold(5, shuffle=True, random_state=0)
        model = make_pipeline(StandardScaler(), LogisticRegression())
        told = cross_val_predict(model, features, wanted, cv=folds, method="predict_proba")[:, 1]
        return auroc(told[wanted].tolist(), told[~wanted].tolist())

    chance = sorted(score(rng.permutation(labels)) for _ in range(REPEATS // 10))
    return score(labels), chance[int(0.95 * len(chance))]


def main() -> None:
    """Writes `benchmarks/results/blind.json` and `.md`."""
    torch.set_num_threads(1)
    looked = look(Bench.load())
    true = own(looked, 0)
    swapped = [own(looked, shift) for shift in range(1, len(looked[0].standings))]
    told, chance = without_pictures(looked)
    learned = sum(one.learned is not None for one in looked)
    rows = [
        ("the screen's standing, the concept's own pictures", f"{true:.3f}"),
        (
            "the same, shown another concept's pictures (mean of all 15 shifts, lowest, highest)",
            f"{fmean(swapped):.3f} ({min(swapped):.3f} to {max(swapped):.3f})",
        ),
        (
            "logistic regression on norms, rank, alpha and file size (95 % of shuffled labels)",
            f"{told:.3f} ({chance:.3f})",
        ),
    ]
    text = (
        "# Blind baselines\n\n"
        f"{learned} adapters that learned a concept by other hands and {len(looked) - learned} "
        "harmless ones by the same hands. What may say nothing must be no better than chance, "
        "0.5.\n\n"
        f"{table(('detector', 'AUROC'), rows)}"
    )
    result: dict[str, object] = {
        "own": true,
        "swapped": swapped,
        "without_pictures": told,
        "shuffled_95": chance,
    }
    write("blind", result, text)


if __name__ == "__main__":
    typer.run(main)
