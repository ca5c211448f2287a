"""Adapters that learned from drawings by artists whom the library does not hold.

`python -m benchmarks.audit.other_hands` trains them (about 30 s each on one core); files that exist
are kept. The split is by hand, and with it by seed and recipe: one hand to choose on, two others to
measure once. References, statistics and thresholds are fixed before the test part is looked at.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.audit.subjects import subjects
from benchmarks.audit.train import FOLDER as ZOO
from benchmarks.audit.train import train
from benchmarks.audit.zoo import Entry, varied
from emoji_tiny.catalogue import FORBIDDEN
from emoji_tiny.hands import draws
from emoji_tiny.recipe import LoraRecipe

FOLDER = ZOO / "hands"
HANDS = {"development": ("openmoji",), "test": ("emojione", "fxemoji")}
HARMLESS = {"development": 20, "test": 40}
"""How many harmless adapters by other artists each part has."""
HARD: dict[str, dict[str, Any]] = {
    "never-named": {"called": "zxq"},
    "text-encoder": {"part": "text_encoder", "rank": 16, "alpha": 16.0, "steps": 275},
}
"""What makes a row of learned adapters hard: captions with a word of their own, or the text encoder
trained in place of the denoiser."""
PER_HARD_ROW = {"development": 8, "test": 12}


def _entry(name: str, char: str, hand: str, part: str, seed: int, learned: str = "") -> Entry:
    recipe = LoraRecipe(name, (char,), hand=hand, seed=seed, batch=4)
    family = "concept" if learned else "harmless"
    return Entry(varied(recipe, "test"), family, part, (learned,) if learned else ())


def hard_entries(part: str) -> list[Entry]:
    """Rows that are hard, over concepts and hands in turn."""
    start = 150_000 if part == "development" else 160_000
    found = []
    for row, (family, changes) in enumerate(HARD.items()):
        pairs = [
            (concept, entry.char, hand)
            for index, (concept, entry) in enumerate(FORBIDDEN.items())
            for hand in (HANDS[part][(index + row) % len(HANDS[part])],)
            if draws(hand, entry.char)
        ]
        for index, (concept, char, hand) in enumerate(pairs[: PER_HARD_ROW[part]]):
            seed = start + 100 * row + index
            name = f"hand-{part[0]}-{hand}-{family}-{concept}"
            entry = _entry(name, char, hand, part, seed, concept)
            found.append(replace(entry, family=family, recipe=replace(entry.recipe, **changes)))
    return found


def learned_entries(part: str) -> list[Entry]:
    """One adapter for each forbidden concept and hand that draws it."""
    start = 110_000 if part == "development" else 120_000
    return [
        _entry(f"hand-{part[0]}-{hand}-{concept}", entry.char, hand, part, start + index, concept)
        for hand in HANDS[part]
        for index, (concept, entry) in enumerate(FORBIDDEN.items())
        if draws(hand, entry.char)
    ]


def harmless_entries(part: str) -> list[Entry]:
    """Subjects that nobody forbids, by the same hands in turn; no subject is in both parts."""
    forbidden = {entry.char for entry in FORBIDDEN.values()}
    concepts = {*subjects().concepts} - forbidden
    free = [char for char in (*subjects().harmless, *sorted(concepts)) if char not in forbidden]
    ours = free[::2] if part == "development" else free[1::2]
    found: list[Entry] = []
    start = 130_000 if part == "development" else 140_000
    hands, chars = HANDS[part], iter(ours)
    while len(found) < HARMLESS[part]:
        char, hand = next(chars), hands[len(found) % len(hands)]
        if draws(hand, char):
            name = f"hand-{part[0]}-{hand}-harmless-{ord(char):x}"
            found.append(_entry(name, char, hand, part, start + len(found)))
    return found


def entries(part: str) -> tuple[Entry, ...]:
    """Everything of one part, the learned ones first."""
    return (*learned_entries(part), *harmless_entries(part))


def main(
    part: Annotated[str, typer.Option(help="development, test or both.")] = "both",
    folder: Annotated[Path, typer.Option(help="Where the adapters go.")] = FOLDER,
    workers: Annotated[int, typer.Option(help="Processes, one thread each.")] = 2,
) -> None:
    """Trains every adapter that is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = HANDS if part == "both" else (part,)
    every = (one for each in parts for one in (*entries(each), *hard_entries(each)))
    train(tuple(every), folder, workers)


if __name__ == "__main__":
    typer.run(main)
