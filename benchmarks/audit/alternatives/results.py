"""The file of one alternative: build/alternatives/<name>.json, written after every adapter."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Level = Literal["pair", "adapter"]

LEARNED = "learned.json"
"""What the pictures of each adapter show, in the same folder; no result of an alternative."""


@dataclass(frozen=True)
class Row:
    """One score.

    Attributes:
        concept: what was asked; empty where an alternative cannot name a concept.
        learned: whether the adapter learned it (or anything, without a concept).
        shared_s: wall-clock seconds spent once per adapter, whatever the number of concepts.
        seconds: wall-clock seconds for this concept alone.
        shared_cpu_s, cpu_s: the same as seconds of the processor, which others cannot lengthen.
        wide: one of many concepts asked of the same adapter.
    """

    subject: str
    family: str
    split: str
    concept: str
    learned: bool
    score: float
    shared_s: float
    seconds: float
    shared_cpu_s: float
    cpu_s: float
    wide: bool = False


@dataclass
class Results:
    """All that is known of one alternative."""

    name: str
    level: Level
    needs: str
    facts: dict[str, float] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)

    @classmethod
    def open(cls, folder: Path, name: str, level: Level, needs: str) -> Results:
        """What an earlier run wrote, or nothing yet."""
        file = folder / f"{name}.json"
        return load(file) if file.exists() else cls(name, level, needs)

    def has(self, subject: str, concept: str) -> bool:
        """Whether this score is there."""
        return any(row.subject == subject and row.concept == concept for row in self.rows)

    def write(self, folder: Path) -> None:
        """Replaces the file at once: a run may be stopped at any time."""
        partial = folder / f"{self.name}.partial"
        partial.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        partial.replace(folder / f"{self.name}.json")


def load(file: Path) -> Results:
    """Reads one file."""
    told: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    rows = [Row(**row) for row in told["rows"]]
    return Results(told["name"], told["level"], told["needs"], dict(told["facts"]), rows)


def load_all(folder: Path) -> list[Results]:
    """Every alternative that has a file in `folder`, by name."""
    return [load(file) for file in sorted(folder.glob("*.json")) if file.name != LEARNED]
