"""`python -m benchmarks.loader_parity`: many random files per rule set, and how they fare.

Writes benchmarks/results/loaders.{json,md}. After a disagreement the exit code is 1.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Annotated

import torch
import typer
from hypothesis import HealthCheck, Phase, given, settings

from benchmarks.loader_parity.compare import (
    NOT_VOUCHED,
    REFUSED,
    VOUCHED,
    DisagreementError,
    compare,
)
from benchmarks.loader_parity.files import AdapterFile, dotted, kohya, peft_folders
from benchmarks.loader_parity.spellings import spellings
from benchmarks.report import write

KINDS = {
    "kohya's names": kohya,
    "diffusers' names": dotted,
    "folder": peft_folders,
    "other spellings": spellings,
}
SETS = (
    ("diffusers", "sd", "kohya's names"),
    ("diffusers", "sd", "diffusers' names"),
    ("diffusers", "sdxl", "kohya's names"),
    ("diffusers", "sdxl", "diffusers' names"),
    ("diffusers", "sd3", "diffusers' names"),
    ("diffusers", "flux", "diffusers' names"),
    *(("diffusers", family, "other spellings") for family in ("sd", "sdxl", "sd3", "flux")),
    ("peft", "sd", "folder"),
    ("peft", "sdxl", "folder"),
    ("peft", "sd3", "folder"),
    ("peft", "flux", "folder"),
)


def run(loader: str, family: str, kind: str, count: int) -> tuple[Counter[str], list[str]]:
    """Compares `count` random files; the tally and what disagreed."""
    tally: Counter[str] = Counter()
    disagreed: list[str] = []

    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(KINDS[kind](family))
    def each(made: AdapterFile) -> None:
        try:
            tally[compare(family, loader, made)] += 1
        except DisagreementError as error:
            tally["disagree"] += 1
            disagreed.append(f"{error}\n{made!r}")

    each()
    return tally, disagreed


def main(
    count: Annotated[int, typer.Option(help="Files per loader and family.")] = 500,
) -> None:
    """Compares the rules of diffusers and peft with the libraries as installed."""
    torch.set_num_threads(1)
    rows, bad = [], []
    for loader, family, kind in SETS:
        began = time.monotonic()
        tally, disagreed = run(loader, family, kind, count)
        seconds = time.monotonic() - began
        typer.echo(f"{loader}, {family}, {kind}: {dict(tally)} in {seconds:.0f} s")
        rows.append({"loader": loader, "family": family, "kind": kind, **tally})
        bad += disagreed
    write("loaders", {"rows": rows}, _report(rows))
    for one in bad[:5]:
        typer.echo(one, err=True)
    raise typer.Exit(bool(bad))


def _report(rows: list[dict[str, object]]) -> str:
    kinds = (VOUCHED, REFUSED, NOT_VOUCHED, "disagree")
    lines = [
        "# Loader rules against the libraries as installed",
        "",
        "Random adapter files, read by our rule and loaded by the library into a tiny model of the",
        "real classes. Equal: the change of every layer is the same within 1e-4. Both refuse: the",
        "library raises and the rule says so. Not vouched for: the rule cannot tell, or a tensor",
        "reaches no layer, and the verdict would be INCONCLUSIVE.",
        "",
        f"| loader | family | names | {' | '.join(kinds)} |",
        "|---|---|---|" + "---:|" * len(kinds),
    ]
    for row in rows:
        counts = " | ".join(str(row.get(kind, 0)) for kind in kinds)
        lines.append(f"| {row['loader']} | {row['family']} | {row['kind']} | {counts} |")
    for loader in ("diffusers", "peft"):
        own = [row for row in rows if row["loader"] == loader]
        total = sum(int(str(row.get(kind, 0))) for row in own for kind in kinds)
        wrong = sum(int(str(row.get("disagree", 0))) for row in own)
        lines += ["", f"{loader}: {total} files, {wrong} disagreements."]
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
