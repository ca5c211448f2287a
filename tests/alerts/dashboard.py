"""Runs what the dashboard asks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from testkit.monitoring import Prometheus

FILE = Path(__file__).parents[2] / "helm" / "loragate" / "dashboards" / "loragate.json"
VARIABLES = {
    "$namespace": "images",
    "$job": "loragate",
    "$client_job": "image-server",
    "$instance": ".*",
    "$__rate_interval": "10s",
    "$__range": "10s",
    "$__interval": "5s",
}


@dataclass
class Answers:
    """By panel and expression: the number of series, or why Prometheus refuses it."""

    series: dict[tuple[str, str], int] = field(default_factory=dict)
    errors: dict[tuple[str, str], str] = field(default_factory=dict)


def panels(file: Path = FILE) -> Iterator[dict[str, Any]]:
    """Every panel that shows something."""
    for panel in json.loads(file.read_text())["panels"]:
        for one in [panel, *panel.get("panels", ())]:
            if one["type"] != "row":
                yield one


def expressions(panel: dict[str, Any]) -> list[str]:
    """What a panel asks, with the variables filled in."""
    found = []
    for target in panel["targets"]:
        expression = target["expr"]
        for name, value in VARIABLES.items():
            expression = expression.replace(name, value)
        found.append(expression)
    return found


def ask_every_panel(prometheus: Prometheus) -> Answers:
    """Asks everything once."""
    answers = Answers()
    for panel in panels():
        for expression in expressions(panel):
            asked = (panel["title"], expression)
            try:
                answers.series[asked] = len(prometheus.query(expression))
            except ValueError as error:
                answers.errors[asked] = str(error)
    return answers
