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
from math import exp, floor, isfinite, log
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


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


_LEAST_P = 1e-300
"""Far beyond everything seen a p-value underflows; order is lost there, and nothing else."""


class Rising:
    """Scores of harmless adapters, sorted, that many p-values are asked of at once.

    Each is that of `conformal_p_value`, to the last bit: the few values that exponentials and
    logarithms are taken of are taken of one by one, as numpy rounds these otherwise.
    """

    def __init__(self, rising: Sequence[float]) -> None:
        self._rising = list(rising)
        self._values = np.asarray(self._rising, dtype=np.float64)
        count = len(self._rising)
        shares = [(1 + higher) / (count + 1) for higher in range(count + 1)]
        self._shares = np.array(shares)
        self._logs = np.array([-log(max(share, _LEAST_P)) for share in shares])

    def p_values(self, scores: Floats) -> Floats:
        """The p-value of each score."""
        higher, beyond = self._places(scores)
        found = self._shares[higher]
        for place in beyond:
            found[place] = conformal_p_value(self._rising, float(scores[place]))
        return found

    def gravities(self, scores: Floats) -> Floats:
        """Minus the logarithm of each p-value."""
        higher, beyond = self._places(scores)
        found = self._logs[higher]
        for place in beyond:
            found[place] = gravity_of(conformal_p_value(self._rising, float(scores[place])))
        return found

    def _places(self, scores: Floats) -> tuple[NDArray[np.intp], list[int]]:
        """How many harmless scores are at least as high, and where there is none."""
        higher = len(self._values) - np.searchsorted(self._values, without_ties(scores))
        higher[np.isnan(scores)] = len(self._values)  # searched for, it would count as the highest
        return higher, np.flatnonzero(higher == 0).tolist()


def without_ties(scores: Floats) -> Floats:
    """The scores less what is no difference; see the module."""
    finite = np.isfinite(scores)
    size = np.where(finite, np.abs(scores), 0.0)
    with np.errstate(over="ignore"):  # the lowest numbers become -inf, as they do one by one
        return scores - np.where(finite, _TIE * np.maximum(1.0, size), 0.0)


def gravity_of(p_value: float) -> float:
    """Minus its logarithm."""
    return -log(max(p_value, _LEAST_P))


def quantile(rising: Sequence[float], share: float) -> float:
    """The sorted score that this share of all lie below."""
    return rising[min(len(rising) - 1, floor(share * len(rising)))]
