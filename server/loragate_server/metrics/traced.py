"""Metrics that also tell the current span what they count."""

from __future__ import annotations

from loragate_server.errors import ErrorReason
from loragate_server.gate.observer import CacheResult
from loragate_server.metrics.metrics import Metrics
from loragate_server.record.verdict import Verdict
from loragate_server.tracing.tracer import note


class TracedMetrics(Metrics):
    """`Metrics`, where tracing is on. The gate reports within the call that it reports about."""

    def decision(self, verdict: Verdict) -> None:
        """Also names the decision."""
        super().decision(verdict)
        decision = verdict.decision
        note("loragate.verdict", decision.verdict.value)
        note("loragate.reasons", tuple(reason.code for reason in decision.reasons))
        note("loragate.decision_id", verdict.decision_id)
        note("loragate.adapter.sha256", tuple(one.sha256 for one in decision.evidence.adapters))
        note("loragate.base_model", decision.evidence.base_model)

    def failure(self, reason: ErrorReason) -> None:
        """Also names the reason."""
        super().failure(reason)
        note("loragate.refusal", reason.value)

    def cache(self, result: CacheResult) -> None:
        """Also says what the cache knew."""
        super().cache(result)
        note("loragate.cache", result)

    def shared_flight(self) -> None:
        """Also says that it waits for another call's audit."""
        super().shared_flight()
        note("loragate.shared_flight", True)
