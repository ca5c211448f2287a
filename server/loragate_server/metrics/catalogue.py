"""How a scan of a catalogue fares, asked anew at every scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from loragate_server.catalogue.progress import LOOKS, OUTCOMES, Progress


def follow_catalogue(registry: CollectorRegistry, progress: Callable[[], Progress]) -> None:
    """Puts a scan's numbers beside those of the process that runs it; a server has none."""
    registry.register(_Scan(progress))


class _Scan(Collector):
    def __init__(self, progress: Callable[[], Progress]) -> None:
        self._progress = progress

    def collect(self) -> Iterator[Metric]:
        """The numbers now."""
        progress = self._progress()
        files = CounterMetricFamily(
            "loragate_catalogue_files",
            "Files of the catalogue that this run is done with, by outcome.",
            labels=["outcome"],
        )
        for outcome in OUTCOMES:
            files.add_metric([outcome], progress.done[outcome])
        yield files
        yield GaugeMetricFamily(
            "loragate_catalogue_listed_files", "Files that the source lists.", progress.total
        )
        yield GaugeMetricFamily(
            "loragate_catalogue_remaining_files", "Files that are not done.", progress.left
        )
        responses = CounterMetricFamily(
            "loragate_catalogue_responses",
            "Decided files that went to the response stage, by whether it had to run.",
            labels=["source"],
        )
        responses.add_metric(["measured"], progress.responded - progress.recalled)
        responses.add_metric(["known"], progress.recalled)
        yield responses
        looks = CounterMetricFamily(
            "loragate_catalogue_looks", "Listings of the source, by result.", labels=["result"]
        )
        for result in LOOKS:
            looks.add_metric([result], progress.looks[result])
        yield looks
        yield GaugeMetricFamily(
            "loragate_catalogue_look_timestamp_seconds",
            "When the source was listed last; 0 before.",
            progress.looked_unix_s,
        )
        yield GaugeMetricFamily(
            "loragate_catalogue_idle_seconds",
            "Since a file was done last, or the run began.",
            progress.idle_s,
        )
