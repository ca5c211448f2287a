"""Counts what the results of a scan say, for the page over all of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from loragate_server.catalogue.progress import REFUSED, SAME
from loragate_server.catalogue.results import read_parts
from loragate_server.policy.decision import Mode, VerdictKind
from loragate_server.report.summary import Counted, Summary

MOST_LISTED = 50
"""Of concepts, families and reasons: a page is read by people. The results have them all."""

_COLUMNS = [
    "location",
    "outcome",
    "would_be_verdict",
    "mode",
    "concept_name",
    "parents",
    "reason",
    "stage_times_s",
]
_SUSPICIOUS = (VerdictKind.BLOCK, VerdictKind.REVIEW)


def summarise(folder: Path) -> Summary:
    """What the results in a folder say. Of a place that was scanned again the newest row counts.

    Keeps one number for each place in memory, and goes through the results twice.

    Raises:
        OSError: a part cannot be read.
        pyarrow.ArrowException: a file of that name is none.
    """
    newest: dict[str, int] = {}
    number = 0
    for batch in read_parts(folder, ["location"]):
        for location in batch.column(0).to_pylist():
            newest[location] = number
            number += 1
    counted = _Counters()
    number = 0
    for batch in read_parts(folder, _COLUMNS):
        for row in batch.to_pylist():
            if newest[row["location"]] == number:
                counted.take(row)
            number += 1
    return counted.summary(folder.name)


class _Counters:
    def __init__(self) -> None:
        self.files = self.same = 0
        self.pilot = False
        self.verdicts: Counter[VerdictKind] = Counter()
        self.concepts: Counter[str] = Counter()
        self.blocked: Counter[str] = Counter()
        self.families: Counter[str] = Counter()
        self.blocked_children: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.stages: dict[str, float] = {}

    def take(self, row: dict[str, object]) -> None:
        self.files += 1
        if row["outcome"] == REFUSED:
            self.refused[str(row["reason"])] += 1
            return
        verdict = VerdictKind(str(row["would_be_verdict"]))
        self.verdicts[verdict] += 1
        self.pilot |= row["mode"] == Mode.PILOT
        if row["outcome"] == SAME:
            self.same += 1
        else:
            # what one audit cost counts once
            for stage, seconds in row["stage_times_s"] or ():  # type: ignore[attr-defined]
                self.stages[stage] = self.stages.get(stage, 0.0) + seconds
        if verdict in _SUSPICIOUS and row["concept_name"]:
            self.concepts[str(row["concept_name"])] += 1
            self.blocked[str(row["concept_name"])] += verdict is VerdictKind.BLOCK
        for parent in row["parents"] or ():  # type: ignore[attr-defined]
            self.families[parent] += 1
            self.blocked_children[parent] += verdict is VerdictKind.BLOCK

    def summary(self, scan_id: str) -> Summary:
        return Summary(
            scan_id,
            self.files,
            dict(self.verdicts),
            self.pilot,
            self.same,
            _most(self.concepts, self.blocked),
            _most(self.families, self.blocked_children),
            _most(self.refused, Counter()),
            self.stages,
        )


def _most(files: Counter[str], blocked: Counter[str]) -> tuple[Counted, ...]:
    ordered = sorted(files.items(), key=lambda one: (-one[1], one[0]))
    return tuple(Counted(name, count, blocked[name]) for name, count in ordered[:MOST_LISTED])
