"""Shows the audits that this process asks for on its own /metrics page.

    from loragate.prometheus import register

    register()  # in an image server that exposes the registry of prometheus_client

Needs `prometheus-client`: pip install 'loragate[prometheus]'. In the multi-process mode of
prometheus_client custom collectors are left out; expose each process by itself there.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from loragate.fail_open import audit_totals, fail_open_total, pilot_total

__all__ = ["AuditCollector", "register"]


class AuditCollector(Collector):
    """Counters of this process, read at every scrape."""

    def describe(self) -> Iterator[Metric]:
        """The same, so that a registry refuses the names a second time."""
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        """Audits by result, and those that let in without a decision or only by a pilot."""
        audits = CounterMetricFamily(
            "loragate_client_audits",
            "Audits that this process asked for, by what it was told.",
            labels=("result",),
        )
        for result, count in audit_totals().items():
            audits.add_metric((result,), count)
        yield audits
        yield CounterMetricFamily(
            "loragate_fail_open",
            "Adapters let in without a decision, because on_unavailable is 'allow'.",
            value=fail_open_total(),
        )
        yield CounterMetricFamily(
            "loragate_client_pilot_allows",
            "Adapters let in only because the policy is in pilot mode.",
            value=pilot_total(),
        )


def register(registry: CollectorRegistry = REGISTRY) -> AuditCollector:
    """Adds the counters to a registry; the default one is what most programs expose.

    Raises:
        ValueError: they are there already.
    """
    collector = AuditCollector()
    registry.register(collector)
    return collector
