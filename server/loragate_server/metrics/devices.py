"""What audit devices have and lack."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client.core import GaugeMetricFamily, Metric

from loragate_server.metrics.series import Series
from loragate_server.record.devices.observer import DeviceObserver

Behind = Mapping[str, tuple[int, float]]
"""By device: lines of the log that it does not have, and the age of the oldest in seconds."""


class DeviceMetrics(Series, DeviceObserver):
    """Metrics of audit devices; without series where there is none."""

    def __init__(self) -> None:
        super().__init__()
        labels = ("device",)
        self._took = self._counter(
            "loragate_device_lines", "Lines of the log that an audit device has taken.", labels
        )
        self._device_failed = self._counter(
            "loragate_device_failures", "Attempts that an audit device took nothing at.", labels
        )
        self._missed = self._counter(
            "loragate_device_missed_lines",
            "Lines that were gone from the log before an audit device had them.",
            labels,
        )
        self._behind: Callable[[], Behind] = dict
        self._collected(self._device_metrics)

    def device_took(self, device: str, lines: int) -> None:
        """A device has taken so many lines."""
        self._took.labels(device).inc(lines)

    def device_failed(self, device: str) -> None:
        """A device did not take a line, or could not be reached."""
        self._device_failed.labels(device).inc()

    def device_missed(self, device: str, lines: int) -> None:
        """So many lines were taken away from the log before a device had them."""
        self._missed.labels(device).inc(lines)

    def follow_devices(self, names: Iterable[str], behind: Callable[[], Behind]) -> None:
        """These devices get the log.

        Args:
            names: of all of them.
            behind: how they stand, asked at every scrape; never blocks.
        """
        for name in names:
            for counter in (self._took, self._device_failed, self._missed):
                counter.labels(name)
        self._behind = behind

    def _device_metrics(self) -> Iterator[Metric]:
        lines = GaugeMetricFamily(
            "loragate_device_behind_lines",
            "Lines of the log that an audit device does not have.",
            labels=("device",),
        )
        seconds = GaugeMetricFamily(
            "loragate_device_behind_seconds",
            "Age of the oldest line that an audit device does not have; 0 without one.",
            labels=("device",),
        )
        for name, (count, age_s) in self._behind().items():
            lines.add_metric((name,), count)
            seconds.add_metric((name,), age_s)
        yield from (lines, seconds)
