"""The shipped rules and routes with shorter times, so that hours pass in seconds.

Nothing but durations is changed: windows, offsets, `for`, and how long Alertmanager waits.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
RULES = ROOT / "helm" / "loragate" / "rules"
ALERTMANAGER = ROOT / "examples" / "alertmanager" / "alertmanager.yml"

WINDOW_FLOOR_S = 6.0
"""A window has to hold a few scrapes."""
FOR_FLOOR_S = 2.0

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION = r"(?:\d+(?:ms|[smhdw]))+"
_WINDOW = re.compile(rf"\[({_DURATION})\]")
_OFFSET = re.compile(rf"\boffset ({_DURATION})")


def seconds(duration: str) -> float:
    """Seconds of a duration as Prometheus writes it, for example "1h30m"."""
    parts = re.findall(r"(\d+)(ms|[smhdw])", duration)
    if "".join(number + unit for number, unit in parts) != duration:
        raise ValueError(f"{duration!r} is no duration")
    return sum(int(number) * _UNITS_S[unit] for number, unit in parts)


def scaled(duration: str, factor: float, floor_s: float = 0.0) -> str:
    """A duration divided by `factor`, in whole milliseconds."""
    return f"{max(seconds(duration) / factor, floor_s) * 1000:.0f}ms"


def scale_expression(expression: str, factor: float) -> str:
    """An expression with shorter windows and offsets."""
    expression = _WINDOW.sub(
        lambda found: f"[{scaled(found[1], factor, WINDOW_FLOOR_S)}]", expression
    )
    return _OFFSET.sub(lambda found: f"offset {scaled(found[1], factor)}", expression)


def scale_rules(text: str, factor: float) -> str:
    """A file of rules, evaluated every second, with all its times divided by `factor`."""
    document: dict[str, Any] = yaml.safe_load(text)
    for group in document["groups"]:
        group["interval"] = "1s"
        for rule in group["rules"]:
            rule["expr"] = scale_expression(rule["expr"], factor)
            if "for" in rule:
                rule["for"] = scaled(rule["for"], factor, FOR_FLOOR_S)
    return str(yaml.safe_dump(document, sort_keys=False, width=10_000))


def scale_routes(text: str, factor: float, receiver_url: str) -> str:
    """The configuration of Alertmanager with shorter waits and receivers below `receiver_url`.

    A receiver keeps its name, which becomes the path that is called.
    """
    document: dict[str, Any] = yaml.safe_load(text)
    routes = [document["route"]]
    while routes:
        route = routes.pop()
        routes += route.get("routes", ())
        for wait in ("group_wait", "group_interval"):
            if wait in route:
                route[wait] = scaled(route[wait], factor, 1.0)
    for receiver in document["receivers"]:
        for hook in receiver["webhook_configs"]:
            hook["url"] = f"{receiver_url}/{receiver['name']}"
    return str(yaml.safe_dump(document, sort_keys=False))
