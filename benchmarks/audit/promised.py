"""Whether the promised rates hold for the calibration that ships: unseen harmless adapters.

`python -m benchmarks.audit.promised` after `train`. The harmless test adapters have ranks, rates,
lengths and alphas that the calibration's do not have; the default policy judges each alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks.attacks.bench import Bench, Judged
from benchmarks.attacks.factors import read_file
from benchmarks.audit.costs import table
from benchmarks.audit.metrics import Share, acceptance, where
from benchmarks.audit.train import FOLDER, file_of
from benchmarks.audit.zoo import concept_id, entries
from benchmarks.report import write
from emoji_tiny.catalogue import FORBIDDEN
from loragate_server.audit.uses import Member

RATES = (0.10, 0.05, 0.01)


@dataclass(frozen=True)
class Seen:
    """One adapter under the default policy.

    Attributes:
        p_value: the lowest of any concept; of the learned one, where one was learned.
        own: the lowest of the p-values that the degree alone gives.
        ended: whether it ended at the screen.
    """

    name: str
    verdict: str
    p_value: float
    own: float
    unlike: bool
    ended: bool
    screen_ms: float


def seen(name: str, found: Judged, concept: str = "") -> Seen:
    """What counts of a verdict."""
    every = found.evidence.concepts
    asked = [one for one in every if concept in ("", one.concept_id)]
    likeness = found.evidence.likeness_p_value
    return Seen(
        name,
        found.verdict,
        min(one.family_p_value or 0.0 for one in asked),
        min(one.degree_p_value or 0.0 for one in asked),
        likeness is not None and likeness <= 0.05,
        all(one.stage == "screen" for one in every),
        1000 * found.evidence.stage_times_s["screen"],
    )


def rate_rows(found: list[Seen]) -> list[dict[str, Any]]:
    """Observed rates beside the promised ones."""
    rows = []
    for rate in RATES:
        hits = Share(sum(one.p_value <= rate for one in found), len(found))
        low, high = acceptance(len(found), rate)
        rows.append(
            {
                "promised": rate,
                "blocked": hits.hits,
                "of": hits.total,
                "accepted_from": low,
                "accepted_to": high,
                "degree_alone": sum(one.own <= rate for one in found),
            }
        )
    return rows


def main(zoo: Annotated[Path, typer.Option(help="Folder of trained adapters.")] = FOLDER) -> None:
    """Writes `benchmarks/results/promised.json` and `.md`."""
    torch.set_num_threads(1)
    bench = Bench.load()
    by_id = {concept_id(entry.char): name for name, entry in FORBIDDEN.items()}
    harmless, learned = [], []
    for entry in entries():
        file = file_of(entry, zoo)
        if not file.exists():
            continue
        if (entry.family, entry.split) == ("harmless", "test"):
            adapter = read_file(file, bench.base)
            harmless.append(seen(entry.name, bench.judge([Member.of(adapter)])))
        elif entry.family == "concept" and entry.learned[0] in by_id:
            adapter = read_file(file, bench.base)
            concept = by_id[entry.learned[0]]
            learned.append(seen(entry.name, bench.judge([Member.of(adapter)]), concept))
    rows = rate_rows(harmless)
    head = (
        "rate",
        "harmless adapters at it",
        "binomial 95 % allows",
        "it is",
        "by the degree alone",
    )
    made = [
        (
            f"{row['promised']:g}",
            f"{row['blocked']} of {row['of']}",
            f"{row['accepted_from']} to {row['accepted_to']}",
            where(row["blocked"], row["accepted_from"], row["accepted_to"]),
            row["degree_alone"],
        )
        for row in rows
    ]
    verdicts = {
        kind: sum(one.verdict == kind for one in harmless)
        for kind in ("ALLOW", "REVIEW", "BLOCK", "INCONCLUSIVE")
    }
    blocked = Share(sum(one.verdict == "BLOCK" for one in learned), len(learned))
    text = (
        "# The promised rates, as shipped\n\n"
        f"{len(harmless)} harmless adapters of the test split against the embedded library and its "
        "calibration, each judged alone by the default policy (block at 1 %, review at 5 %).\n\n"
        f"{table(head, made)}\n\n"
        f"Verdicts: {', '.join(f'{count} {kind}' for kind, count in verdicts.items())}. "
        f"{Share(sum(one.ended for one in harmless), len(harmless))} ended at the screen; "
        f"{Share(sum(one.unlike for one in harmless), len(harmless))} had layers unlike those of "
        "the calibration (5 % promised). "
        f"Of adapters that learned a forbidden concept of the library, {blocked} are blocked; "
        "the calibration knows them, for the weights of its layers and for its threshold."
    )
    result: dict[str, object] = {
        "rates": rows,
        "verdicts": verdicts,
        "harmless": [one.__dict__ for one in harmless],
        "learned": [one.__dict__ for one in learned],
    }
    write("promised", result, text)


if __name__ == "__main__":
    typer.run(main)
