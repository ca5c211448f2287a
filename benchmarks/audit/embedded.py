"""Makes the calibration that ships with the embedded base model: from the zoo, by the real command.

`python -m benchmarks.audit.embedded` after `python -m benchmarks.audit.train` and
`python -m benchmarks.audit.other_hands --part development`. With `--again` the harmless adapters
are those that were kept beside the calibration as it is, and only learned ones need to be there.
"""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.audit import other_hands
from benchmarks.audit.train import file_of
from benchmarks.audit.zoo import concept_id, entries
from emoji_tiny.catalogue import FORBIDDEN

TARGET = Path("server/loragate_server/assets/emoji_tiny/calibration.json")
PLOT = Path("docs/pictures/calibration.png")


def main(
    out: Annotated[Path, typer.Option(help="The calibration to write.")] = TARGET,
    plot: Annotated[Path, typer.Option(help="False blocks against misses.")] = PLOT,
    again: Annotated[
        bool, typer.Option(help="Harmless adapters: those kept beside the one that ships.")
    ] = False,
) -> None:
    """Calibrates with the harmless development adapters and those of forbidden concepts.

    Among the latter are those by the development hand, which the library does not show.
    """
    by_id = {concept_id(entry.char): name for name, entry in FORBIDDEN.items()}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "harmless").mkdir()
        rows = []
        for entry in entries():
            file = file_of(entry)
            if not file.exists():
                continue
            if (entry.family, entry.split) == ("harmless", "development"):
                if not again:
                    shutil.copy(file, folder / "harmless")
            elif entry.family == "concept" and entry.learned[0] in by_id:
                rows.append((str(file.absolute()), by_id[entry.learned[0]]))
        for entry in other_hands.learned_entries("development"):
            rows.append((str(file_of(entry, other_hands.FOLDER).absolute()), entry.learned[0]))
        with (folder / "learned.csv").open("w", newline="") as lines:
            csv.writer(lines).writerows(rows)
        arguments = ["--learned", folder / "learned.csv", "--out", out, "--plot", plot]
        state = ["--state-dir", folder / "state"]
        quiet = ["--again", TARGET] if again else [folder / "harmless"]
        command = [sys.executable, "-m", "loragate_server", "calibrate", *quiet]
        subprocess.run([*map(str, [*command, *arguments, *state])], check=True)
    for before in out.parent.glob(f"{out.stem}.before-*"):  # nothing of it ships
        before.unlink()


if __name__ == "__main__":
    typer.run(main)
