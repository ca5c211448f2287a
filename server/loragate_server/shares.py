"""How far a share that was counted may lie from the true one."""

from __future__ import annotations

CONFIDENCE = 0.95
"""Share of intervals that hold the true value."""


def interval(count: int, of: int) -> tuple[float, float]:
    """The Clopper-Pearson interval of a share at CONFIDENCE; (0, 1) of nothing."""
    if of == 0:
        return 0.0, 1.0
    from scipy.stats import binomtest

    found = binomtest(count, of).proportion_ci(CONFIDENCE, method="exact")
    return float(found.low), float(found.high)
