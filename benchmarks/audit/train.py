"""Trains the zoo: `python -m benchmarks.audit.train --help`. Files that exist are kept."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import time
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.audit.zoo import CHECKPOINTS, Entry, entries, fast_entries

PIPELINE = Path("server/loragate_server/assets/emoji_tiny/pipeline")
FOLDER = Path("build/zoo")


def file_of(entry: Entry, folder: Path = FOLDER, steps: int | None = None) -> Path:
    """Where an adapter is; with `steps`, where its checkpoint is."""
    name = entry.name if steps is None else f"{entry.name}@{steps}"
    return folder / f"{name}.safetensors"


def _train(job: tuple[Entry, Path]) -> tuple[str, float]:
    import torch

    from emoji_tiny.train_lora import train_lora

    torch.set_num_threads(1)
    entry, folder = job
    began = time.monotonic()
    kept = {s: file_of(entry, folder, s) for s in CHECKPOINTS} if entry.family == "steps" else {}
    partial = file_of(entry, folder / f"partial-{os.getpid()}")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        train_lora(PIPELINE, entry.recipe, partial, checkpoints=kept)
    partial.replace(file_of(entry, folder))
    return entry.name, time.monotonic() - began


def train(todo: tuple[Entry, ...], folder: Path, workers: int) -> None:
    """Trains what is missing, each adapter on one thread."""
    missing = [(entry, folder) for entry in todo if not file_of(entry, folder).exists()]
    typer.echo(f"{len(missing)} of {len(todo)} adapters to train in {folder}")
    began = time.monotonic()
    # spawned: torch does not survive a fork once its threads have run
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        for done, (name, seconds) in enumerate(pool.imap_unordered(_train, missing), 1):
            left_s = (time.monotonic() - began) / done * (len(missing) - done)
            typer.echo(f"{done}/{len(missing)} {name} {seconds:.0f} s, {left_s / 60:.0f} min left")


def main(
    folder: Annotated[Path, typer.Option(help="Where the adapters go.")] = FOLDER,
    workers: Annotated[int, typer.Option(help="Processes, one thread each.")] = 2,
    fast: Annotated[bool, typer.Option(help="Only the 40 adapters of the fast version.")] = False,
) -> None:
    """Trains every adapter of the zoo that is missing (about two hours on two cores)."""
    train(fast_entries() if fast else entries(), folder, workers)


if __name__ == "__main__":
    typer.run(main)
