"""Fingerprints of what audits measure, to see that a change of the house changes no figure.

`python -m benchmarks.evidence > before` on one tree and `> after` on another; `diff before after`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks.attacks.bench import Bench
from benchmarks.attacks.factors import read_file
from benchmarks.attacks.metamorphic import adapters
from benchmarks.audit.train import FOLDER
from loragate_server.audit.uses import Member

TIMES = "stage_times_s"


def main(zoo: Annotated[Path, typer.Option(help="Folder of trained adapters.")] = FOLDER) -> None:
    """Prints a line per adapter: name, verdict, sha256 of everything measured but the times."""
    torch.set_num_threads(1)
    bench = Bench.load()
    for file in adapters(zoo):
        judged = bench.judge([Member.of(read_file(file, bench.base))])
        measured = {k: v for k, v in asdict(judged.evidence).items() if k != TIMES}
        text = json.dumps(measured, sort_keys=True, default=str)
        typer.echo(f"{file.stem} {judged.verdict} {hashlib.sha256(text.encode()).hexdigest()}")


if __name__ == "__main__":
    typer.run(main)
