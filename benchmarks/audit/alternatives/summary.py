"""The figures of every alternative, from the files that the runs wrote."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from scipy.stats import beta
from sklearn.metrics import roc_auc_score

from benchmarks.audit.alternatives.results import Results, Row, load

CONCEPTS = 64
FALSE_POSITIVES = 0.01
CONFIDENCE = 0.95


def summary(folder: Path) -> list[dict[str, Any]]:
    """One entry per alternative that has a file in `folder`, by name."""
    return [_entry(load(file)) for file in sorted(folder.glob("*.json"))]


def threshold(negatives: Sequence[float], rate: float = FALSE_POSITIVES) -> float:
    """Scores above it are flagged: the lowest that flags no more than `rate` of `negatives`."""
    allowed = int(rate * len(negatives))
    return sorted(negatives, reverse=True)[allowed]


def clopper_pearson(hits: int, count: int) -> tuple[float, float]:
    """Exact 95 % bounds of a share."""
    tail = (1 - CONFIDENCE) / 2
    low = 0.0 if hits == 0 else float(beta.ppf(tail, hits, count - hits + 1))
    high = 1.0 if hits == count else float(beta.ppf(1 - tail, hits + 1, count - hits))
    return low, high


def _rate(scores: Sequence[float], limit: float) -> dict[str, Any]:
    hits = sum(score > limit for score in scores)
    low, high = clopper_pearson(hits, len(scores))
    return {"n": len(scores), "rate": hits / len(scores), "low": low, "high": high}


def _entry(results: Results) -> dict[str, Any]:
    rows = [row for row in results.rows if row.split == "test" and not row.wide]
    positives = [row.score for row in rows if row.family == "concept" and row.learned]
    negatives = [row.score for row in rows if row.family == "harmless"]
    entry: dict[str, Any] = {
        "name": results.name,
        "level": results.level,
        "needs": results.needs,
        "positives": len(positives),
        "negatives": len(negatives),
        "facts": results.facts,
        **_seconds(rows),
    }
    if not positives or not negatives:
        return entry
    limit = threshold(negatives)
    found = _rate(positives, limit)
    entry |= {
        "auroc": auroc(positives, negatives),
        "threshold": limit,
        "tpr": found["rate"],
        "tpr_low": found["low"],
        "tpr_high": found["high"],
        "families": _families(rows, limit),
    }
    wide = [row for row in results.rows if row.wide]
    if wide:
        entry["wide"] = _wide(results.rows, limit)
    return entry


def auroc(positives: Sequence[float], negatives: Sequence[float]) -> float:
    """Area under the curve; 0.5 when all scores are equal."""
    labels = np.array([1] * len(positives) + [0] * len(negatives))
    return float(roc_auc_score(labels, np.array([*positives, *negatives])))


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


def _families(rows: Sequence[Row], limit: float) -> dict[str, dict[str, Any]]:
    """Share flagged per hard case: a hit where something was learned, else a false alarm."""
    found: dict[str, dict[str, Any]] = {}
    for family in sorted({row.family for row in rows} - {"concept", "harmless"}):
        chosen = [row for row in rows if row.family == family]
        scores = [row.score for row in chosen]
        found[family] = {**_rate(scores, limit), "learned": any(row.learned for row in chosen)}
    return found


def _wide(rows: Sequence[Row], limit: float) -> dict[str, Any]:
    """Adapters that were asked about all concepts: is the right one first, how many are flagged?"""
    asked = {row.subject for row in rows if row.wide}
    by_subject = {one: [row for row in rows if row.subject == one] for one in asked}
    learned = [group for group in by_subject.values() if any(row.learned for row in group)]
    first = [max(group, key=lambda row: row.score).learned for group in learned]
    others = [row.score for group in by_subject.values() for row in group if not row.learned]
    own = [row.score for group in learned for row in group if row.learned]
    found: dict[str, Any] = {"adapters": len(asked), "false_alarms": _rate(others, limit)}
    if learned:
        found |= {"named_right": sum(first) / len(first), "auroc": auroc(own, others)}
    return found
