"""The shipped rules in shorter times, in a real Prometheus and Alertmanager, and who is told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from testkit.monitoring import Prometheus, Receiver, alertmanager, prometheus, receiver
from testkit.scaling import ALERTMANAGER, RULES, scale_routes, scale_rules
from testkit.waiting import eventually

PATIENCE_S = 25.0
ROUTES_FACTOR = 200


@dataclass(frozen=True)
class Scale:
    """How much faster time runs for one Prometheus.

    Attributes:
        factor: all durations are divided by it.
        alerts: the only ones it has, without their prefix; all of them where none is named.
    """

    factor: float
    alerts: tuple[str, ...] = ()


@dataclass
class Watch:
    """One or several Prometheus and the one Alertmanager that they tell.

    Attributes:
        metrics: in the order of their scales.
        heard: who was told.
        fired: alerts that have fired so far.
    """

    metrics: tuple[Prometheus, ...]
    heard: Receiver
    fired: set[str] = field(default_factory=set)

    def expect(self, *alerts: str, told: bool = True, patience_s: float = PATIENCE_S) -> None:
        """Waits until these alerts fire, and until somebody was told. What stays away is noted."""
        wanted = {f"Loragate{alert}" for alert in alerts}

        def happened() -> bool:
            self.fired = set[str]().union(*(one.fired() for one in self.metrics))
            silent = {alert for alert in wanted if told and not self.heard.receivers(alert)}
            return wanted <= self.fired - silent

        eventually(happened, patience_s)


@contextmanager
def watching(folder: Path, scales: Sequence[Scale]) -> Iterator[Watch]:
    """Runs a Prometheus for each scale, Alertmanager and a receiver."""
    with ExitStack() as stack:
        heard = stack.enter_context(receiver())
        routes = scale_routes(ALERTMANAGER.read_text(), ROUTES_FACTOR, heard.url)
        manager = stack.enter_context(alertmanager(folder / "alertmanager", routes))
        metrics = []
        for number, scale in enumerate(scales):
            (rules := folder / f"rules{number}").mkdir()
            files = [_write_rules(file, rules, scale) for file in sorted(RULES.glob("*.yaml"))]
            started = prometheus(folder / f"prometheus{number}", files, manager)
            metrics.append(stack.enter_context(started))
        yield Watch(tuple(metrics), heard)


def _write_rules(file: Path, folder: Path, scale: Scale) -> Path:
    """A shipped file at this scale; recording rules all stay."""
    document = yaml.safe_load(scale_rules(file.read_text(), scale.factor))
    wanted = {f"Loragate{alert}" for alert in scale.alerts}
    for group in document["groups"]:
        group["rules"] = [
            rule
            for rule in group["rules"]
            if not wanted or "record" in rule or rule["alert"] in wanted
        ]
    shorter = folder / file.name
    shorter.write_text(yaml.safe_dump(document, sort_keys=False, width=10_000))
    return shorter
