"""Conformal p-values: how often harmless adapters score as high.

Split-conformal (Vovk et al., "Algorithmic Learning in a Random World"; Angelopoulos and Bates,
arXiv 2107.07511): if a new harmless adapter is exchangeable with n that were set aside, its p-value
(1 + how many of them score at least as high) / (n + 1) is at most a with probability at most a,
whatever the score is.

Beyond the highest of n scores a p-value could never fall under 1 / (n + 1). There the tail is taken
as exponential with the mean excess of the top tenth (peaks over threshold); this only orders what
is already beyond everything seen.

Scores that differ by less than rounding, or a thousandth of an adapter, would do are ties, and ties
count as at least as high. So a verdict does not hang on what has no effect, not even for an adapter
that is compared with its own measure.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from math import exp, floor, isfinite
from statistics import fmean


def conformal_p_value(rising: Sequence[float], score: float) -> float:
    """The p-value of a score among those of harmless adapters, sorted; see the module.

    Scores of minus infinity stand for adapters that were not measured; they are never higher.
    """
    count = len(rising)
    score -= _TIE * max(1.0, abs(score)) if isfinite(score) else 0.0
    higher = count - bisect_left(rising, score)
    if higher:
        return (1 + higher) / (count + 1)
    top = [one for one in rising[-max(2, count // 10) :] if isfinite(one)]
    if len(top) < 2:
        return 1 / (count + 1)
    scale = max(fmean(top) - top[0], _NARROW * max(1.0, abs(top[-1])))
    return exp(-(score - top[-1]) / scale) / (count + 1)


_TIE = 2e-3
"""Scores that are so close are equal, relative to them where they are above 1."""
_NARROW = 1e-3
"""Smallest scale of a tail, relative to its scores: equal scores are no sharp edge."""


def quantile(rising: Sequence[float], share: float) -> float:
    """The sorted score that this share of all lie below."""
    return rising[min(len(rising) - 1, floor(share * len(rising)))]
