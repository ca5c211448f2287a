"""What an adapter's own pictures show: the second of two truths about it, beside its training.

`python -m benchmarks.audit.shown` after `benchmarks.audit.other_hands` and
`benchmarks.audit.recogniser`; some seconds for each adapter. It draws pictures with every learned
adapter, under the word by which its captions call the concept, and has the recogniser name them.
No audit sees these pictures. What was judged is kept, so it may be stopped and started again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import typer

from benchmarks.attacks.factors import read_file
from benchmarks.audit.alternatives.drawing import draw, prompt_of
from benchmarks.audit.alternatives.tools import Tools
from benchmarks.audit.other_hands import FOLDER, HANDS, entries, hard_entries
from benchmarks.audit.recogniser import FOLDER as KEPT_IN
from benchmarks.audit.recogniser import Recogniser
from benchmarks.audit.train import file_of
from benchmarks.audit.zoo import Entry
from loragate_server.adapter.reference import Strength

KEPT = KEPT_IN / "shown.json"
PICTURES = 20
"""Drawn with each adapter."""
SEED = 78
"""Of the noise that they begin with; the recogniser has seen no picture from it."""
PLAINLY = 10
"""Pictures that have to be named as the concept for an adapter to show it plainly. Fixed before any
picture was drawn."""


@dataclass(frozen=True)
class Shown:
    """How many of `PICTURES` the recogniser named as the concept.

    Attributes:
        sha256: of the adapter's file.
        pictures: with the adapter.
        base: without it, from the same noise and the same words.
    """

    sha256: str
    pictures: int
    base: int

    @property
    def plainly(self) -> bool:
        """Whether anybody would say that it shows the concept."""
        return self.pictures >= PLAINLY


def kept() -> dict[str, Shown]:
    """What was judged, by the adapter's name; none of a file that was made anew since."""
    if not KEPT.exists():
        return {}
    every = {name: Shown(**one) for name, one in json.loads(KEPT.read_text()).items()}
    return {name: one for name, one in every.items() if one.sha256 == _sha256(_file(name))}


def learned_entries() -> list[Entry]:
    """Every adapter by other hands that learned a concept, easy or hard."""
    every = (one for part in HANDS for one in (*entries(part), *hard_entries(part)))
    return [one for one in every if one.learned and file_of(one, FOLDER).exists()]


def _file(name: str) -> Path:
    return FOLDER / f"{name}.safetensors"


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else ""


def _count(named: Sequence[str], char: str) -> int:
    return sum(one == char for one in named)


def judge(tools: Tools, recogniser: Recogniser, entry: Entry, file: Path) -> Shown:
    """Draws with one adapter, that was trained so and lies there, and without it."""
    [char] = entry.recipe.subjects
    prompt = f"a picture of {entry.recipe.called}" if entry.recipe.called else prompt_of(char)
    prompts = [prompt] * PICTURES
    adapter = read_file(file, tools.base)
    with_it = draw(tools, prompts, SEED, [(adapter, Strength())])
    without = draw(tools, prompts, SEED)
    return Shown(
        _sha256(file),
        _count(recogniser.names(with_it), char),
        _count(recogniser.names(without), char),
    )


def main() -> None:
    """Judges every learned adapter that was not judged yet."""
    torch.set_num_threads(1)
    tools, recogniser, known = Tools.load(KEPT_IN), Recogniser.open(), kept()
    missing = [one for one in learned_entries() if one.name not in known]
    for done, entry in enumerate(missing, 1):
        found = known[entry.name] = judge(tools, recogniser, entry, file_of(entry, FOLDER))
        typer.echo(
            f"{done}/{len(missing)} {entry.name}: {found.pictures} of {PICTURES}, "
            f"{found.base} without it"
        )
        told = {name: vars(one) for name, one in known.items()}
        KEPT.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
