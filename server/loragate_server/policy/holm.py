"""Holm's step-down correction for asking about many concepts at once."""

from __future__ import annotations

import math
from collections.abc import Sequence


def holm_adjusted(p_values: Sequence[float]) -> list[float]:
    """Adjusts raw p-values so that thresholds bound the family-wise false-block rate.

    The adjusted value of the i-th smallest of m is max over j <= i of min(1, (m - j + 1) p_j)
    (Holm 1979, "A simple sequentially rejective multiple test procedure"). A value that is not a
    number keeps its place in m and ranks first, so that it never makes another one milder; it
    stays not a number.
    """
    count = len(p_values)
    order = sorted(
        range(count), key=lambda i: -math.inf if math.isnan(p_values[i]) else p_values[i]
    )
    adjusted = [math.nan] * count
    running = 0.0
    for rank, index in enumerate(order):
        if not math.isnan(p_values[index]):
            running = max(running, min(1.0, (count - rank) * p_values[index]))
            adjusted[index] = running
    return adjusted
