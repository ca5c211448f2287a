"""What is on record and in the results when a scan has ended: each digest once, each place once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from loragate_server.catalogue.results import read_parts
from loragate_server.record.codec import parse_verdict
from loragate_server.record.database import Database, Span
from loragate_server.record.verdict import Verdict
from loragate_server.replay import stored_decisions


@dataclass
class Found:
    """Counts over a whole scan.

    Attributes:
        digests: of different files that have a decision.
        twice: digests with more than one decision.
        lost: places without a result.
        doubled: places with more than one result.
        outcomes, verdicts, stages: name to files.
        poison: name of a refused file to the reason.
    """

    digests: int = 0
    twice: int = 0
    lost: int = 0
    doubled: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    verdicts: dict[str, int] = field(default_factory=dict)
    stages: dict[str, int] = field(default_factory=dict)
    poison: dict[str, str] = field(default_factory=dict)


def decisions(state: Path) -> Iterator[Verdict]:
    """Everything on record."""
    with closing(Database(f"sqlite:///{state / 'loragate.sqlite3'}", 30)) as database:
        for one in stored_decisions(database, Span()):
            yield parse_verdict(one.payload)


def digest_of(verdict: Verdict) -> str:
    """Of the one adapter."""
    return verdict.decision.evidence.adapters[0].sha256


def look(source: Path, state: Path) -> Found:
    """Goes through record and results once."""
    digests: Counter[str] = Counter()
    verdicts: Counter[str] = Counter()
    stages: Counter[str] = Counter()
    for verdict in decisions(state):
        digests[digest_of(verdict)] += 1
        verdicts[verdict.decision.verdict.value] += 1
        concepts = verdict.decision.evidence.concepts
        stages["response" if any(one.stage == "response" for one in concepts) else "screen"] += 1
    found = Found(len(digests), sum(count > 1 for count in digests.values()))
    places: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    for folder in {part.parent for part in (state / "catalogue").glob("*/part-*.parquet")}:
        for batch in read_parts(folder, ["location", "outcome", "reason"]):
            for row in batch.to_pylist():
                places[row["location"]] += 1
                outcomes[row["outcome"]] += 1
                if row["outcome"] == "refused":
                    found.poison[Path(row["location"]).name] = row["reason"]
    listed = {str(path) for path in source.rglob("*.safetensors")}
    found.lost = len(listed - places.keys())
    found.doubled = sum(count > 1 for count in places.values())
    found.outcomes, found.verdicts, found.stages = dict(outcomes), dict(verdicts), dict(stages)
    return found
