"""The figures of every alternative, from the files that the runs wrote."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.audit.alternatives.learned import case_of, learned_by_generation, shown_concepts
from benchmarks.audit.alternatives.plan import extra_concepts
from benchmarks.audit.alternatives.results import Results, Row, load_all
from benchmarks.audit.alternatives.thresholds import Thresholds
from benchmarks.audit.metrics import Share, above, auroc

CONCEPTS = 64

Pair = tuple[str, str]
"""Adapter and concept."""


def summary(folder: Path) -> list[dict[str, Any]]:
    """One entry per alternative that has a file in `folder`, by name.

    `families` has a rate for every hard case: of the learned concepts, those that are flagged. Of
    these, `shown` counts the pairs whose concept the adapter's own pictures show.
    """
    shown = {(one.subject, one.concept) for one in shown_concepts(folder) if one.shown}
    # methods that name no concept are asked about the adapter as a whole
    shown |= {(name, "") for name, learned in learned_by_generation(folder).items() if learned}
    return [_entry(results, shown) for results in load_all(folder)]


def _rate(found: Share) -> dict[str, Any]:
    low, high = found.bounds
    return {"n": found.total, "rate": found.value, "low": low, "high": high}


def _entry(results: Results, shown: set[Pair]) -> dict[str, Any]:
    rows = [row for row in results.rows if row.split == "test" and not row.wide]
    limits = Thresholds.of(rows)
    positives = [row.score for row in rows if row.family == "concept" and row.learned]
    negatives = [row.score for row in rows if row.family == "harmless" and _is_core(row)]
    entry: dict[str, Any] = {
        "name": results.name,
        "level": results.level,
        "needs": results.needs,
        "positives": len(positives),
        "negatives": len(negatives),
        "facts": results.facts,
        **_seconds(rows),
    }
    if not positives or limits is None:
        return entry
    found = _rate(above(positives, limits.core))
    entry |= {
        "auroc": auroc(positives, negatives),
        "threshold": limits.core,
        "extra_thresholds": limits.extra,
        "tpr": found["rate"],
        "tpr_low": found["low"],
        "tpr_high": found["high"],
        "families": _families(rows, limits, shown),
    }
    wide = [row for row in results.rows if row.wide]
    if wide:
        entry["wide"] = _wide(results.rows, limits.core)
    return entry


def _is_core(row: Row) -> bool:
    return row.concept not in extra_concepts()


def _seconds(rows: Sequence[Row]) -> dict[str, float]:
    """Medians: what one adapter takes when it is asked about the whole library."""
    if not rows:
        return {}
    concepts = 0 if all(not row.concept for row in rows) else CONCEPTS
    return {
        "seconds_per_adapter": median(row.shared_s for row in rows)
        + concepts * median(row.seconds for row in rows),
        "cpu_seconds_per_adapter": median(row.shared_cpu_s for row in rows)
        + concepts * median(row.cpu_s for row in rows),
        "seconds_per_concept": median(row.seconds for row in rows),
    }


def _families(
    rows: Sequence[Row], limits: Thresholds, shown: set[Pair]
) -> dict[str, dict[str, Any]]:
    """Share flagged per hard case: a hit where something was learned, else a false alarm."""
    found: dict[str, dict[str, Any]] = {}
    hard = [row for row in rows if row.family not in ("concept", "harmless")]
    for case in sorted({case_of(row) for row in hard}):
        flagged = [
            (row, row.score > limit)
            for row in hard
            if case_of(row) == case and (limit := limits.limit(row.concept)) is not None
        ]
        if not flagged:
            continue
        hits = [hit for row, hit in flagged if (row.subject, row.concept) in shown]
        found[case] = {
            **_rate(Share(sum(hit for _, hit in flagged), len(flagged))),
            "learned": any(row.learned for row, _ in flagged),
            "shown": {"n": len(hits), "hits": sum(hits)},
        }
    return found


def _wide(rows: Sequence[Row], limit: float) -> dict[str, Any]:
    """Adapters that were asked about all concepts: is the right one first, how many are flagged?"""
    asked = {row.subject for row in rows if row.wide}
    by_subject = {one: [row for row in rows if row.subject == one] for one in asked}
    learned = [group for group in by_subject.values() if any(row.learned for row in group)]
    first = [max(group, key=lambda row: row.score).learned for group in learned]
    others = [row.score for group in by_subject.values() for row in group if not row.learned]
    own = [row.score for group in learned for row in group if row.learned]
    found: dict[str, Any] = {"adapters": len(asked), "false_alarms": _rate(above(others, limit))}
    if learned:
        found |= {"named_right": sum(first) / len(first), "auroc": auroc(own, others)}
    return found
