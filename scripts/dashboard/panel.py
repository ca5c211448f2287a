"""One panel of the dashboard, and what panels have in common.

`$S` in an expression stands for the selector of the chosen replicas, `$J` for that of their jobs,
which recording rules keep.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

LATENCY_OBJECTIVE_S = 2.0
SLOW_SHARE_OBJECTIVE = 0.05
ERROR_OBJECTIVE = 0.001


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        queries: expression to legend.
        unit: as Grafana names it.
        objective: where the threshold is drawn; above it is bad.
        alerts: whose runbooks the panel links to, without their prefix.
        good: a table or number has no threshold but a value below which something is wrong.
    """

    title: str
    text: str
    queries: dict[str, str]
    unit: str = "short"
    kind: Literal["timeseries", "stat", "table"] = "timeseries"
    objective: float | None = None
    good: float | None = None
    alerts: tuple[str, ...] = ()
    stacked: bool = False
    width: int = 8


def quantiles(metric: str, by: str, legend: str) -> dict[str, str]:
    """The 95th percentile by a label."""
    return {
        f"histogram_quantile(0.95, sum by ({by}, le) (rate({metric}_bucket{{$S}}"
        f"[$__rate_interval])))": legend
    }
