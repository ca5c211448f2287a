"""Did a hard case learn its concept at all? Its own pictures say so, whatever an audit says.

A hard case may fail to be found because nothing was learned: a quarter of an adapter may be too
little to draw anything. What the adapter draws is shown to the classifier of
`generate_and_classify`, at the threshold of 1 % false alarms.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.audit.alternatives.results import LEARNED, Row, load_all
from benchmarks.audit.alternatives.thresholds import Thresholds
from benchmarks.audit.alternatives.tools import FOLDER

JUDGE = "generate_and_classify"


@dataclass(frozen=True)
class Shown:
    """One adapter and one concept that its training, or its kind, was about.

    Attributes:
        case: a row of the hard-case table.
        shown: whether its pictures show the concept; None when they were not looked at.
    """

    subject: str
    case: str
    concept: str
    score: float | None = None
    threshold: float | None = None
    shown: bool | None = None


def case_of(row: Row) -> str:
    """The row of the hard-case table; members that no adapter learned have their own."""
    other = row.family == "group" and row.concept.startswith("group-")
    return "group-other-members" if other else row.family


def shown_concepts(folder: Path = FOLDER) -> list[Shown]:
    """Every test adapter with every concept it learned, of those that any method was asked."""
    found: dict[tuple[str, str], Shown] = {}
    for each in load_all(folder):
        judge = each.name == JUDGE
        limits = Thresholds.of(each.rows) if judge else None
        for row in each.rows:
            key = (row.subject, row.concept)
            asked = row.concept and row.learned and row.split == "test" and not row.wide
            if asked and (judge or key not in found):
                found[key] = _judged(row, limits)
    return [found[key] for key in sorted(found)]


def _judged(row: Row, limits: Thresholds | None) -> Shown:
    limit = limits.limit(row.concept) if limits else None
    if limit is None:
        return Shown(row.subject, case_of(row), row.concept)
    return Shown(row.subject, case_of(row), row.concept, row.score, limit, row.score > limit)


def learned_by_generation(folder: Path = FOLDER) -> dict[str, bool | None]:
    """Adapter to whether its pictures show all that it was trained on; None when unknown.

    Members of a kind that it was not trained on do not count.
    """
    found: dict[str, bool | None] = {}
    for one in shown_concepts(folder):
        if one.case == "group-other-members":
            continue
        before = found.get(one.subject, True)
        known = before is not None and one.shown is not None
        found[one.subject] = before and one.shown if known else None
    return found


def write_learned(folder: Path = FOLDER) -> Path:
    """Writes every judgement into `folder`."""
    file = folder / LEARNED
    told = [asdict(one) for one in shown_concepts(folder)]
    file.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return file
