"""Prometheus metrics: what `gate` and `rpc` report becomes series on one registry.

Labels are bounded: every label value comes from a closed set that this process knows when it
starts, never from a request. All combinations exist from the start with the value 0, because
`rate()` cannot see the first event of a series that appears with it.
"""

from __future__ import annotations

import contextlib
import itertools
import platform
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import prometheus_client
from cryptography.x509 import load_pem_x509_certificates
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from loragate_server import __version__
from loragate_server.audit.evidence import ENGINE_VERSION
from loragate_server.checkpoint.result import NO_EXTRACTOR, Result
from loragate_server.errors import ErrorReason
from loragate_server.gate.observer import CACHE_RESULTS, STAGES, CacheResult
from loragate_server.metrics_labels import (
    CODES,
    DECISION_REASONS,
    Method,
    decision_reason,
    served_methods,
)
from loragate_server.policy.decision import Mode, VerdictKind
from loragate_server.policy.store import PolicyStore
from loragate_server.record.verdict import Verdict

# The `_created` series double the number of series and no rule of ours reads them.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]

CALL_BUCKETS_S: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25),
    *(0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0),
)
"""Dense around the two promises: a cached answer in 10 ms, an audit in 2 s."""

_EXEMPLAR_LIMIT: Final = 100  # characters; OpenMetrics allows 128 for names and values together


class Metrics:
    """Every metric of the server. Implements `gate.observer.GateObserver`; thread-safe."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._make_call_metrics(served_methods())
        self._make_gate_metrics()
        self._make_intercept_metrics()
        self._make_state_metrics()

    # What the rpc interceptors report.

    def call_started(self, method: str) -> None:
        """A call of `method` ("/package.Service/Method") arrived."""
        self._started.labels(*self._method(method)).inc()

    def call_handled(self, method: str, code: str, seconds: float, request_id: str = "") -> None:
        """A call ended with the gRPC status name `code` after `seconds`."""
        known = self._method(method)
        self._handled.labels(*known, code if code in CODES else "UNKNOWN").inc()
        self._handling.labels(*known).observe(seconds, _exemplar("request_id", request_id))

    # What the gate reports.

    def decision(self, verdict: Verdict) -> None:
        """A caller is answered."""
        decision = verdict.decision
        self._decisions.labels(decision.verdict, decision_reason(decision)).inc(
            exemplar=_exemplar("decision_id", verdict.decision_id)
        )
        if decision.mode is Mode.PILOT:
            self._pilot.labels(decision.would_be_verdict).inc()

    def failure(self, reason: ErrorReason) -> None:
        """A caller gets no decision."""
        self._refusals.labels(reason).inc()
        if reason in (ErrorReason.DECISION_LOG_UNAVAILABLE, ErrorReason.DISK_FULL):
            self._log_failures.inc()

    def stage_seconds(self, stage: str, seconds: float) -> None:
        """One stage of an audit that was run took this long."""
        self._stages.labels(stage if stage in STAGES else "other").observe(seconds)

    def cache(self, result: CacheResult) -> None:
        """The verdict cache was asked."""
        self._cache.labels(result).inc()

    def shared_flight(self) -> None:
        """A request joined an equal one that was already running."""
        self._shared.inc()

    def inflight_bytes(self, count: int) -> None:
        """Adapter bytes that requests in flight hold."""
        self._inflight.set(count)

    def queue_depth(self, depth: int) -> None:
        """Audits that wait for the worker."""
        self._depth.set(depth)

    def queue_wait_seconds(self, seconds: float) -> None:
        """An audit waited this long before the worker took it."""
        self._wait.observe(seconds)

    # What the checkpoint reports.

    def intercepted(self, extractor: str, outcome: str, seconds: float) -> None:
        """A request to an image server was answered."""
        known = extractor if extractor in self._extractors else NO_EXTRACTOR
        self._intercepted.labels(known, outcome).inc()
        self._intercept.labels(known).observe(seconds)

    def follow_extractors(self, names: Iterable[str]) -> None:
        """These extractors read requests; others are counted as "none"."""
        self._extractors |= frozenset(names)
        for name in (*sorted(self._extractors), NO_EXTRACTOR):
            self._intercept.labels(name)
            for result in Result:
                self._intercepted.labels(name, result.value)

    # What the application reports.

    def base_model(self, name: str, *, family: str, digest: str, device: str, dtype: str) -> None:
        """A base model is served."""
        self._base.labels(name).info(
            {"family": family, "digest": digest[:12], "device": device, "dtype": dtype}
        )

    def kernel_backend(self, backend: str) -> None:
        """The kernels run on this backend."""
        self._kernel.info({"backend": backend})

    def follow_compilations(self, count: Callable[[], int | None]) -> None:
        """Tells how many kernels a launch had to compile, asked anew at every scrape.

        Args:
            count: the number so far; None where it cannot be known.
        """
        self._compilations.count = count

    def follow_policy(self, policies: PolicyStore) -> None:
        """Tells which policy is in force, and whether it is the one in the file, from now on."""
        self._policy_in_force(policies.current.digest)
        policies.on_change(lambda policy: self._policy_in_force(policy.digest))
        self._reload_ok.set_function(lambda: float(policies.last_reload_success))
        self._reload_time.set_function(lambda: policies.last_reload_timestamp_s)

    def _policy_in_force(self, digest: str) -> None:
        self._policy.info({"revision": digest[:12]})

    def follow_certificate(self, file: Path) -> None:
        """Tells when the certificate in `file` expires, read anew at every scrape.

        Raises:
            ValueError: there is no certificate in it now.
            OSError: it cannot be read now.
        """
        last = expires_unix_s(file)

        def read() -> float:
            nonlocal last
            # A file that is being replaced may be torn; the server keeps the old certificate too.
            with contextlib.suppress(OSError, ValueError):
                last = expires_unix_s(file)
            return last

        self._certificate.set_function(read)

    def ready(self, ready: bool) -> None:
        """Whether the server takes requests."""
        self._ready.set(ready)

    # How they are made.

    def _make_call_metrics(self, methods: Iterable[Method]) -> None:
        labels = ("grpc_type", "grpc_service", "grpc_method")
        self._methods = {method.path: method for method in methods}
        self._started = self._counter(
            "grpc_server_started", "Calls that arrived at the server.", labels
        )
        self._handled = self._counter(
            "grpc_server_handled", "Calls that ended, by status code.", (*labels, "grpc_code")
        )
        self._handling = self._histogram(
            "grpc_server_handling_seconds", "Time from arrival to end of a call.", labels
        )
        for method in {*self._methods.values(), Method.UNKNOWN}:
            self._started.labels(*method.labels)
            self._handling.labels(*method.labels)
            for code in CODES:
                self._handled.labels(*method.labels, code)

    def _make_gate_metrics(self) -> None:
        self._decisions = self._counter(
            "loragate_decisions", "Decisions answered, by first reason.", ("verdict", "reason")
        )
        for verdict, reason in itertools.product(VerdictKind, DECISION_REASONS):
            self._decisions.labels(verdict, reason)
        self._pilot = self._counter(
            "loragate_pilot_decisions",
            "Decisions in pilot mode, by the verdict that enforcement would have given.",
            ("would_be_verdict",),
            VerdictKind,
        )
        self._refusals = self._counter(
            "loragate_refusals", "Requests that got no decision.", ("reason",), ErrorReason
        )
        self._stages = self._histogram(
            "loragate_decision_duration_seconds",
            "Time per stage of audits that were run.",
            ("stage",),
        )
        for stage in (*STAGES, "other"):
            self._stages.labels(stage)
        self._cache = self._counter(
            "loragate_cache_requests", "Look-ups in the verdict cache.", ("result",), CACHE_RESULTS
        )
        self._shared = self._counter(
            "loragate_shared_flights", "Requests that joined an equal one already running."
        )
        self._wait = self._histogram(
            "loragate_queue_wait_seconds", "Time an audit waited for the worker."
        )
        self._inflight = self._gauge(
            "loragate_inflight_bytes", "Adapter bytes that requests in flight hold."
        )
        self._depth = self._gauge("loragate_queue_depth", "Audits that wait for the worker.")
        self._log_failures = self._counter(
            "loragate_log_write_failures", "Decisions withheld because the log was not written."
        )

    def _make_intercept_metrics(self) -> None:
        self._extractors: frozenset[str] = frozenset()
        self._intercepted = self._counter(
            "loragate_intercepted_requests",
            "Requests to image servers that were checked.",
            ("extractor", "outcome"),
        )
        self._intercept = self._histogram(
            "loragate_intercept_seconds", "Time a check took.", ("extractor",)
        )

    def _make_state_metrics(self) -> None:
        build = Info("loragate_build", "What runs here.", registry=self.registry)
        build.info(
            {
                "version": __version__,
                "engine_version": ENGINE_VERSION,
                "python_version": platform.python_version(),
            }
        )
        self._policy = Info("loragate_policy", "The policy in force.", registry=self.registry)
        self._reload_ok = self._gauge(
            "loragate_policy_last_reload_success", "1 if the policy file in place is in force."
        )
        self._reload_time = self._gauge(
            "loragate_policy_last_reload_timestamp_seconds", "When a policy was last put in force."
        )
        self._certificate = self._gauge(
            "loragate_certificate_expiry_timestamp_seconds",
            "When the certificate of the gRPC port expires; 0 without TLS.",
        )
        self._ready = self._gauge("loragate_ready", "1 while the server takes requests.")
        self._base = Info(
            "loragate_base_model", "Served base models.", ("name",), registry=self.registry
        )
        self._kernel = Info("loragate_kernel", "Backend of the kernels.", registry=self.registry)
        self._compilations = _Compilations()
        self.registry.register(self._compilations)

    def _method(self, path: str) -> tuple[str, str, str]:
        return self._methods.get(path, Method.UNKNOWN).labels

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

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, registry=self.registry)

    def _histogram(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Histogram:
        return Histogram(name, text, labels, buckets=CALL_BUCKETS_S, registry=self.registry)


class _Compilations(Collector):
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


def expires_unix_s(file: Path) -> float:
    """When the first certificate of a PEM file expires.

    Raises:
        ValueError: there is no certificate in it.
        OSError: it cannot be read.
    """
    return load_pem_x509_certificates(file.read_bytes())[0].not_valid_after_utc.timestamp()


def _exemplar(label: str, value: str) -> dict[str, str] | None:
    return {label: value} if value and len(value) <= _EXEMPLAR_LIMIT else None
