"""Events that others are told: attempts, and what waits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric

from loragate_server.events.observer import EventObserver
from loragate_server.metrics.series import Asked, Series

NOT_CONFIGURED: Final = "not_configured"
"""Value of `receiver` for events of receivers that the configuration no longer names."""

Backlogs = Mapping[str, tuple[float, int, int]]
"""By receiver: age of the oldest undelivered event in seconds, how many wait, how many are dead."""


class EventMetrics(Series, EventObserver):
    """Metrics of events; without series where nobody is told."""

    def __init__(self) -> None:
        super().__init__()
        labels = ("receiver", "kind")
        self._delivered = self._counter(
            "loragate_events_delivered", "Events that a receiver has taken.", labels
        )
        self._failed = self._counter(
            "loragate_events_failed", "Attempts that a receiver has not taken an event at.", labels
        )
        self._told: Mapping[str, Sequence[str]] = {}
        self._backlogs: Asked[Backlogs] | None = None
        self._collected(self._event_metrics)

    def event_delivered(self, receiver: str, kind: str) -> None:
        """A receiver has taken an event."""
        self._delivered.labels(receiver, kind).inc()

    def event_failed(self, receiver: str, kind: str) -> None:
        """An attempt failed."""
        self._failed.labels(receiver, kind).inc()

    def follow_events(
        self, receivers: Mapping[str, Sequence[str]], backlogs: Callable[[], Backlogs]
    ) -> None:
        """These receivers are told of these kinds.

        Args:
            receivers: by name, their kinds.
            backlogs: how they stand; asked at every scrape, and may block.
        """
        for name, kinds in receivers.items():
            for kind in kinds:
                self._delivered.labels(name, kind)
                self._failed.labels(name, kind)
        self._told = receivers
        self._backlogs = Asked(backlogs)

    def _event_metrics(self) -> Iterator[Metric]:
        oldest = GaugeMetricFamily(
            "loragate_events_oldest_seconds",
            "Age of the oldest event that is still to be delivered; 0 without one.",
            labels=("receiver",),
        )
        waiting = GaugeMetricFamily(
            "loragate_events_waiting", "Events to be delivered.", labels=("receiver",)
        )
        dead = GaugeMetricFamily(
            "loragate_events_dead_letters", "Events that were given up.", labels=("receiver",)
        )
        found = None if self._backlogs is None else self._backlogs.known()
        if found is not None:
            for name, (age_s, wait, gone) in self._by_known(found).items():
                oldest.add_metric((name,), age_s)
                waiting.add_metric((name,), wait)
                dead.add_metric((name,), gone)
        yield from (oldest, waiting, dead)

    def _by_known(self, found: Backlogs) -> dict[str, tuple[float, int, int]]:
        """With a value for every receiver, and one for all that are not configured."""
        nothing = (0.0, 0, 0)
        known = {name: found.get(name, nothing) for name in self._told}
        others = [one for name, one in found.items() if name not in self._told]
        ages, waits, deads = zip(*(others or [nothing]), strict=True)
        return {**known, NOT_CONFIGURED: (max(ages), sum(waits), sum(deads))}
