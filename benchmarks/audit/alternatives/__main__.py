"""Runs the alternatives over the zoo: `python -m benchmarks.audit.alternatives --help`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks.audit.alternatives.learned import write_learned
from benchmarks.audit.alternatives.plan import Question, questions, wide_questions
from benchmarks.audit.alternatives.registry import ALTERNATIVES, Alternative
from benchmarks.audit.alternatives.run import run_adapters, run_pairs
from benchmarks.audit.alternatives.summary import summary
from benchmarks.audit.alternatives.tools import FOLDER, Tools
from benchmarks.audit.derive import Subject, derived_subjects, plain_subjects

NAMES = ", ".join(each.name for each in ALTERNATIVES)


def main(
    only: Annotated[str, typer.Option(help=f"One of {NAMES}; all when empty.")] = "",
    limit: Annotated[int, typer.Option(help="Adapters per alternative at most; 0: all.")] = 0,
    family: Annotated[str, typer.Option(help="Adapters of this family of the zoo alone.")] = "",
    wide: Annotated[bool, typer.Option(help="60 adapters with all concepts each.")] = False,
    figures: Annotated[bool, typer.Option(help="Only print the figures so far.")] = False,
    folder: Annotated[Path, typer.Option(help="Where the scores are kept.")] = FOLDER,
    threads: Annotated[int, typer.Option(help="Threads of torch.")] = 1,
) -> None:
    """Scores what has no score yet and prints the figures; may be stopped at any time."""
    chosen = [each for each in ALTERNATIVES if only in ("", each.name)]
    if not chosen:
        raise typer.BadParameter(f"{only!r} is not one of {NAMES}", param_hint="--only")
    if not figures:
        torch.set_num_threads(threads)
        tools = Tools.load(folder)
        for alternative in chosen:
            _run(alternative, tools, family, limit, wide)
    write_learned(folder)
    for entry in summary(folder):
        typer.echo(json.dumps(entry))


def _run(alternative: Alternative, tools: Tools, family: str, limit: int, wide: bool) -> None:
    if alternative.level == "adapter":
        every = _adapters(tools)
        chosen = [each for each in every if each.split != "test" or family in ("", each.family)]
        run_adapters(alternative, tools, every, chosen, limit, typer.echo)
        return
    asked: list[Question] = wide_questions() if wide else questions(tools, family)
    run_pairs(alternative, tools, asked, limit, typer.echo)


def _adapters(tools: Tools) -> list[Subject]:
    """Concept and harmless adapters of the development split, and all of the test split."""
    fitted = [
        each
        for each in plain_subjects()
        if each.split == "development" and each.family in ("concept", "harmless")
    ]
    every = plain_subjects() + derived_subjects(tools.base)
    return fitted + [each for each in every if each.split == "test"]


if __name__ == "__main__":
    typer.run(main)
