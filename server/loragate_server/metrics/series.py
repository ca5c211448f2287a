"""What all our metrics are made with: one registry, one set of buckets, values asked for late."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Final, Generic, TypeVar

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from loragate_server.threads import DaemonPool
from loragate_server.tracing.tracer import trace_id

# The `_created` series double the number of series and no rule of ours reads them.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]

CALL_BUCKETS_S: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25),
    *(0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0),
)
"""Dense around the two promises: a cached answer in 10 ms, an audit in 2 s."""

EXEMPLAR_CHARACTERS: Final = 128
"""What OpenMetrics allows for names and values together."""

Value = TypeVar("Value")

_log = logging.getLogger(__name__)


class Series:
    """Makes metrics on a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

    def _counter(
        self,
        name: str,
        text: str,
        labels: tuple[str, ...] = (),
        values: Iterable[str] = (),
    ) -> Counter:
        """A counter; `values` of its only label are registered."""
        counter = Counter(name, text, labels, registry=self.registry)
        for value in values:
            counter.labels(value)
        return counter

    def _gauge(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Histogram:
        return Histogram(name, text, labels, buckets=CALL_BUCKETS_S, registry=self.registry)

    def _collected(self, collect: Callable[[], Iterable[Metric]]) -> None:
        """Metrics whose samples are made at every scrape."""
        self.registry.register(_Collected(collect))


class _Collected(Collector):
    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self._collect = collect

    def collect(self) -> Iterator[Metric]:
        """What the function yields now."""
        yield from self._collect()


class Compilations(Collector):
    """A counter that somebody else keeps, and that has no value where nobody counts."""

    def __init__(self) -> None:
        self.count: Callable[[], int | None] = lambda: None

    def collect(self) -> Iterator[Metric]:
        """The counter; without a sample where the number is not known, since 0 would be a claim."""
        count = self.count()
        yield CounterMetricFamily(
            "loragate_kernel_compilations",
            "Kernels that a launch had to compile, after the warm-up.",
            value=count,
        )


class Asked(Generic[Value]):
    """A question that may block, asked anew at every scrape on a thread of its own.

    A scrape must not wait for a database that is gone: it would be taken for a dead server.
    """

    def __init__(self, question: Callable[[], Value], wait_s: float = 0.5) -> None:
        self._question = question
        self._wait_s = wait_s
        self._pool = DaemonPool(1, "scrape")
        self._pending: Future[Value] | None = None

    def answer(self) -> Value:
        """The answer of now.

        Raises:
            TimeoutError: there is none yet; the next scrape waits for the same one.
            Exception: whatever the question raises.
        """
        if self._pending is None:
            self._pending = self._pool.submit(self._question)
        pending = self._pending
        try:
            value = pending.result(self._wait_s)
        except TimeoutError:
            if pending.done():  # the question itself ran into a limit
                self._pending = None
            raise
        except Exception:
            self._pending = None
            raise
        self._pending = None
        return value

    def known(self) -> Value | None:
        """As `answer`; None, and a line in the log, where there is none."""
        try:
            return self.answer()
        except Exception as error:  # any failure of one number leaves the other metrics alone
            _log.warning("a metric has no value now: %s", str(error) or type(error).__name__)
            return None


def exemplar(label: str, value: str) -> dict[str, str] | None:
    """An exemplar with the trace, if it is kept, and the value, if it is short enough for both."""
    trace = trace_id(sampled=True)
    found = {"trace_id": trace} if trace else {}
    used = sum(map(len, (*found, *found.values(), label, value)))
    if value and used <= EXEMPLAR_CHARACTERS:
        found[label] = value
    return found or None
