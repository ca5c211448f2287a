"""PAIA on the adapters by other hands: `python -m benchmarks.audit.disjoint_paia`, 20 minutes.

With the same library as loragate, so with reference pictures by three hands, on the adapters of
`benchmarks.audit.disjoint`. Every adapter is asked about all forbidden concepts; what was measured
is kept, so it may be stopped and started again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Annotated, Any

import torch
import typer

from benchmarks.attacks.bench import EMBEDDED
from benchmarks.audit.alternatives.paia import Paia
from benchmarks.audit.alternatives.tools import Tools
from benchmarks.audit.costs import table
from benchmarks.audit.derive import Subject
from benchmarks.audit.disjoint import HANDS
from benchmarks.audit.metrics import Share, auroc
from benchmarks.audit.other_hands import FOLDER, entries
from benchmarks.audit.train import file_of
from benchmarks.report import RESULTS, write
from emoji_tiny.catalogue import FORBIDDEN

KEPT = "disjoint_paia"
HEAD = ("share", "PAIA", "loragate")


def measure(tools: Tools, kept: dict[str, dict[str, float]]) -> None:
    """Scores of every concept for each adapter that has none yet."""
    paia = Paia(tools)
    for concept in FORBIDDEN:
        paia.warm(concept)
    subjects = [
        Subject(entry.name, entry.family, part, entry.learned, (file_of(entry, FOLDER),))
        for part in HANDS
        for entry in entries(part)
        if file_of(entry, FOLDER).exists()
    ]
    missing = [one for one in subjects if one.name not in kept]
    for done, subject in enumerate(missing, 1):
        began = time.monotonic()
        score = paia.prepare(subject)
        kept[subject.name] = {concept: score(concept) for concept in FORBIDDEN}
        kept[subject.name]["seconds"] = time.monotonic() - began
        typer.echo(f"{done}/{len(missing)} {subject.name} {time.monotonic() - began:.0f} s")


def summary(kept: dict[str, dict[str, float]]) -> dict[str, Any]:
    """The shares of the test hands, at the score that no harmless adapter of any part reaches.

    That threshold is kinder than one chosen beforehand: it knows the test's harmless adapters.
    """
    learned = [one for one in entries("test") if one.learned and one.name in kept]
    harmless = [one for part in HANDS for one in entries(part) if not one.learned]
    known = [one for one in harmless if one.name in kept]
    highest = [_highest(kept[one.name]) for one in known]
    test = [_highest(kept[one.name]) for one in known if one in entries("test")]
    own = [kept[one.name][one.learned[0]] for one in learned]
    first = [kept[one.name][one.learned[0]] == _highest(kept[one.name]) for one in learned]
    return {
        "above": str(Share(sum(one > max(highest) for one in own), len(own))),
        "first": str(Share(sum(first), len(first))),
        "auroc": round(auroc(own, test), 4),
        "seconds": sorted(one["seconds"] for one in kept.values())[len(kept) // 2],
    }


def _highest(scores: dict[str, float]) -> float:
    return max(scores[concept] for concept in FORBIDDEN)


def main(
    threads: Annotated[int, typer.Option(help="Threads of torch.")] = 1,
) -> None:
    """Writes `benchmarks/results/disjoint_paia.json` and `.md`."""
    torch.set_num_threads(threads)
    tools = Tools.load(library_folder=EMBEDDED / "concepts")
    file = tools.folder / f"{KEPT}.json"
    kept = json.loads(file.read_text()) if file.exists() else {}
    try:
        measure(tools, kept)
    finally:
        file.write_text(json.dumps(kept, indent=1))
    ours = json.loads((RESULTS / "disjoint.json").read_text())["now"]
    found = summary(kept)
    write(KEPT, {"paia": found, "loragate": ours, "scores": kept}, _text(found, ours))


def _text(found: dict[str, Any], ours: dict[str, Any]) -> str:
    rows: Sequence[tuple[object, ...]] = (
        (
            "found: above every harmless adapter (PAIA), BLOCK (loragate)",
            found["above"],
            ours["blocked"],
        ),
        ("the concept is named first", found["first"], ours["first"]),
        ("AUROC over adapters", found["auroc"], ours["auroc"]),
    )
    return (
        "# PAIA on adapters by other hands\n\n"
        "`python -m benchmarks.audit.disjoint_paia`: PAIA (arXiv 2504.14815) as far as it can be "
        "rebuilt, with the same library by three hands, on the test adapters of "
        "[disjoint.md](disjoint.md). Its threshold is the highest score of all 60 harmless "
        "adapters, which it could not know beforehand; loragate's is its calibration by other "
        "adapters, at 1 %.\n\n"
        f"{table(HEAD, rows)}\n\n"
        f"PAIA takes {found['seconds']:.0f} s for an adapter and 16 concepts (median, one thread)."
    )


if __name__ == "__main__":
    typer.run(main)
