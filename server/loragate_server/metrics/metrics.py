"""Prometheus metrics: what `gate` and `rpc` report becomes series on one registry.

Labels are bounded: every label value comes from a closed set that this process knows when it
starts, never from a request. All combinations exist from the start with the value 0, because
`rate()` cannot see the first event of a series that appears with it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from prometheus_client import Counter, Histogram

from loragate_server.checkpoint.result import NO_EXTRACTOR, CheckObserver, Result
from loragate_server.errors import ErrorReason
from loragate_server.gate.observer import (
    CACHE_RESULTS,
    GIVEN_UP,
    STAGES,
    CacheResult,
    GateObserver,
    GivenUp,
)
from loragate_server.metrics.devices import DeviceMetrics
from loragate_server.metrics.events import EventMetrics
from loragate_server.metrics.labels import (
    CODES,
    DECISION_REASONS,
    Method,
    decision_reason,
    served_methods,
)
from loragate_server.metrics.series import exemplar
from loragate_server.metrics.state import StateMetrics
from loragate_server.policy.decision import Mode, VerdictKind
from loragate_server.record.verdict import Verdict
from loragate_server.relay.observer import Cause, RelayObserver
from loragate_server.rpc.observer import CallObserver

REVIEW_ACTIONS: Final = ("approve", "reject", "reopen")


@dataclass(frozen=True)
class CallSeries:
    """What is counted of the calls of one method.

    Attributes:
        handled: by status code.
    """

    started: Counter
    handling: Histogram
    handled: Mapping[str, Counter]


class Metrics(
    StateMetrics,
    EventMetrics,
    DeviceMetrics,
    GateObserver,
    CallObserver,
    CheckObserver,
    RelayObserver,
):
    """Every metric of the server; thread-safe."""

    def __init__(self) -> None:
        super().__init__()
        self._make_call_metrics(served_methods())
        self._make_gate_metrics()
        self._make_decision_metrics()
        self._make_intercept_metrics()

    # What the rpc interceptors report.

    def call_started(self, method: str) -> None:
        """A call of `method` ("/package.Service/Method") arrived."""
        self._series(method).started.inc()

    def call_handled(self, method: str, code: str, seconds: float, request_id: str = "") -> None:
        """A call ended with the gRPC status name `code` after `seconds`."""
        series = self._series(method)
        series.handled.get(code, series.handled["UNKNOWN"]).inc()
        series.handling.observe(seconds, exemplar("request_id", request_id))

    # What the gate reports.

    def decision(self, verdict: Verdict) -> None:
        """A caller is answered."""
        decision = verdict.decision
        self._decisions.labels(decision.verdict, decision_reason(decision)).inc(
            exemplar=exemplar("decision_id", verdict.decision_id)
        )
        if decision.mode is Mode.PILOT:
            self._pilot.labels(decision.would_be_verdict).inc()
        if not verdict.cached:
            self._audit.observe(
                sum(verdict.stage_times_s.values()), exemplar("decision_id", verdict.decision_id)
            )

    def recorded(self, verdict: Verdict) -> None:
        """A decision was written down: nothing from the cache, and no decision twice."""
        if verdict.binding:
            self._recorded.labels(verdict.decision.would_be_verdict).inc(
                exemplar=exemplar("decision_id", verdict.decision_id)
            )

    def failure(self, reason: ErrorReason) -> None:
        """A caller gets no decision."""
        self._refused[reason].inc()
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

    def worker_given_up(self, cause: GivenUp) -> None:
        """The thread that audits was given up."""
        self._replaced.labels(cause).inc()

    def workers_stuck(self, count: int) -> None:
        """So many threads were given up and still run."""
        self._stuck.set(count)

    def endless_file(self) -> None:
        """A file was audited at which a loader's conversion does not end."""
        self._endless.inc()

    # What the store reports.

    def corrupt_file(self) -> None:
        """A stored file was not what it is called, and has been deleted."""
        self._corrupt.inc()

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

    # What the relays report.

    def relay_connections(self, extractor: str, count: int) -> None:
        """So many WebSockets are relayed."""
        self._relayed.labels(extractor).set(count)

    def relay_ended(self, extractor: str, cause: Cause) -> None:
        """A relayed WebSocket ended."""
        self._relay_ended.labels(extractor, cause).inc()

    def follow_relays(self, names: Iterable[str]) -> None:
        """These extractors have a relay."""
        for name in names:
            self._relayed.labels(name).set(0)
            for cause in Cause:
                self._relay_ended.labels(name, cause)

    # What the console reports.

    def review(self, action: str) -> None:
        """A person has decided about an adapter: one of `REVIEW_ACTIONS`.

        Raises:
            ValueError: there is no such action.
        """
        if action not in REVIEW_ACTIONS:
            raise ValueError(f"{action!r} is not one of {', '.join(REVIEW_ACTIONS)}")
        self._reviews.labels(action).inc()

    # How they are made.

    def _make_call_metrics(self, methods: Iterable[Method]) -> None:
        labels = ("grpc_type", "grpc_service", "grpc_method")
        self._started = self._counter(
            "grpc_server_started", "Calls that arrived at the server.", labels
        )
        self._handled = self._counter(
            "grpc_server_handled", "Calls that ended, by status code.", (*labels, "grpc_code")
        )
        self._handling = self._histogram(
            "grpc_server_handling_seconds", "Time from arrival to end of a call.", labels
        )
        # looked up once: labels are told apart by name anew each time they are asked for
        self._of_method = {
            method.path: CallSeries(
                self._started.labels(*method.labels),
                self._handling.labels(*method.labels),
                {code: self._handled.labels(*method.labels, code) for code in CODES},
            )
            for method in (Method.UNKNOWN, *methods)
        }

    def _make_gate_metrics(self) -> None:
        refusals = self._counter(
            "loragate_refusals", "Requests that got no decision.", ("reason",), ErrorReason
        )
        self._refused = {reason: refusals.labels(reason) for reason in ErrorReason}
        self._stages = self._histogram(
            "loragate_decision_duration_seconds",
            "Time per stage of audits that were run.",
            ("stage",),
        )
        for stage in (*STAGES, "other"):
            self._stages.labels(stage)
        self._audit = self._histogram(
            "loragate_audit_seconds", "Time to a decision that was not cached, all stages together."
        )
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
        self._replaced = self._counter(
            "loragate_worker_replaced",
            "Threads that audit and were given up, because they hung or had ended.",
            ("cause",),
            GIVEN_UP,
        )
        self._stuck = self._gauge(
            "loragate_worker_stuck", "Threads that were given up and still run."
        )
        self._endless = self._counter(
            "loragate_endless_files",
            "Files audited at which a loader's conversion does not end; it was not run, or ended.",
        )
        self._log_failures = self._counter(
            "loragate_log_write_failures", "Decisions withheld because the log was not written."
        )
        self._corrupt = self._counter(
            "loragate_store_corrupt_files",
            "Stored files that somebody else had changed, and that were deleted.",
        )

    def _make_decision_metrics(self) -> None:
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
        self._recorded = self._counter(
            "loragate_recorded_decisions",
            "Decisions written down, by what the policy decided, in pilot mode as well.",
            ("verdict",),
            VerdictKind,
        )
        self._reviews = self._counter(
            "loragate_reviews", "What people have decided.", ("action",), REVIEW_ACTIONS
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
        self._relayed = self._gauge(
            "loragate_relay_connections", "WebSockets that are relayed.", ("extractor",)
        )
        self._relay_ended = self._counter(
            "loragate_relay_ended", "Relayed WebSockets that ended.", ("extractor", "cause")
        )

    def _series(self, path: str) -> CallSeries:
        return self._of_method.get(path, self._of_method[Method.UNKNOWN.path])
