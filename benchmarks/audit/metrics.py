"""Error rates with their bounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Share:
    """Successes of a number of trials, with the Clopper-Pearson bounds of 95 %."""

    hits: int
    total: int

    @property
    def value(self) -> float:
        """The observed share."""
        return self.hits / self.total if self.total else float("nan")

    @property
    def bounds(self) -> tuple[float, float]:
        """Exact, Clopper and Pearson 1934."""
        if not self.total:
            return 0.0, 1.0
        found = stats.binomtest(self.hits, self.total).proportion_ci(0.95, method="exact")
        return float(found.low), float(found.high)

    def __str__(self) -> str:
        if not self.total:
            return "-"
        low, high = self.bounds
        return f"{self.value:.1%} ({self.hits}/{self.total}; {low:.1%} to {high:.1%})"


def auroc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """The probability that a positive scores above a negative; ties count half."""
    if not positive or not negative:
        return float("nan")
    u = stats.mannwhitneyu(positive, negative, alternative="two-sided").statistic
    return float(u) / (len(positive) * len(negative))


def threshold_at(negative: Sequence[float], rate: float) -> float:
    """The score that at most `rate` of the negatives exceed."""
    rising = np.sort(np.asarray(negative, dtype=np.float64))
    return float(rising[ceil((1 - rate) * len(rising)) - 1])


def above(values: Sequence[float], threshold: float) -> Share:
    """How many lie above a threshold."""
    return Share(sum(value > threshold for value in values), len(values))


def acceptance(total: int, rate: float) -> tuple[int, int]:
    """The counts that a binomial of this rate gives in 95 % of all cases."""
    low, high = stats.binom.interval(0.95, total, rate)
    return int(low), int(high)


def where(hits: int, low: int, high: int) -> str:
    """Where a count is of what `acceptance` gives: fewer than promised are no broken promise."""
    return "**above**" if hits > high else "inside" if hits >= low else "below"
