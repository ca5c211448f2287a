"""Trains the adapters of the ladder: `python -m benchmarks.attacks.ladder.train --help`.

About a minute each on one core, seventy in all. Files that exist are kept.
"""

from __future__ import annotations

import contextlib
import io
import time
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks.attacks.ladder.rungs import FOLDER, RUNGS, Rung, against, entries_of
from benchmarks.audit.other_hands import FOLDER as BLIND
from benchmarks.audit.train import PIPELINE, file_of
from benchmarks.audit.zoo import Entry
from emoji_tiny.train_lora import train_lora


def where(rung: Rung, entry: Entry) -> Path:
    """Where an adapter of a rung is; the blind ones are those of `benchmarks.audit.other_hands`."""
    return file_of(entry, BLIND if rung.name == "blind" else FOLDER)


def main(
    rung: Annotated[list[str] | None, typer.Option(help="Only these; repeatable.")] = None,
) -> None:
    """Trains what is missing, one after the other on one thread."""
    torch.set_num_threads(1)
    chosen = [one for one in RUNGS if not rung or one.name in rung]
    every = [(one, entry) for one in chosen for entry in entries_of(one)]
    todo = [(one, entry) for one, entry in every if not where(one, entry).exists()]
    typer.echo(f"{len(todo)} of {len(every)} adapters to train")
    began = time.monotonic()
    for done, (one, entry) in enumerate(todo, 1):
        partial = where(one, entry).with_name(f"partial-{entry.name}.safetensors")
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            train_lora(PIPELINE, entry.recipe, partial, against=against(one, entry))
        partial.replace(where(one, entry))
        left_s = (time.monotonic() - began) / done * (len(todo) - done)
        typer.echo(f"{done}/{len(todo)} {entry.name}, {left_s / 60:.0f} min left")


if __name__ == "__main__":
    typer.run(main)
