"""What one play of the story showed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from testkit.monitoring import Prometheus, Receiver
from tests.alerts.dashboard import Answers

RUNBOOKS = Path(__file__).parents[2] / "docs" / "runbooks"


@dataclass
class Played:
    """What was seen.

    Attributes:
        healthy: alerts that fired under healthy load.
        panels: what the dashboard's expressions gave after healthy load.
        metrics: names of all metrics that servers and SDK exposed.
        runbook_queries: how many queries the runbooks have.
        runbook_errors: those that Prometheus refuses.
        fired: alerts that fired later.
        heard: who was told.
    """

    healthy: set[str]
    panels: Answers
    metrics: set[str]
    runbook_queries: int
    runbook_errors: list[str]
    fired: set[str] = field(default_factory=set)
    heard: Receiver = field(default_factory=Receiver)


def runbook_queries() -> Iterator[str]:
    """Every line of PromQL in the runbooks."""
    for page in sorted(RUNBOOKS.glob("*.md")):
        for block in re.findall(r"```promql\n(.*?)```", page.read_text(), re.DOTALL):
            yield from block.splitlines()


def answered(prometheus: Prometheus, query: str) -> bool:
    """Whether Prometheus takes a query."""
    try:
        prometheus.query(query)
    except ValueError:
        return False
    return True
