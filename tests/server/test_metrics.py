from __future__ import annotations

import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme
from prometheus_client import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from loragate_server.checkpoint.result import CheckObserver
from loragate_server.config.schema import EMBEDDED_POLICY
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.gate.observer import GateObserver
from loragate_server.metrics.labels import CODES, DECISION_REASONS, served_methods
from loragate_server.metrics.metrics import REVIEW_ACTIONS, Metrics
from loragate_server.metrics.state import FAIL_OPEN_SETTINGS, RECORD_FAILURES, ServedState
from loragate_server.policy.decision import Mode, Remedy, VerdictKind
from loragate_server.policy.store import PolicyStore
from loragate_server.record.verdict import Verdict
from loragate_server.rpc.observer import CallObserver
from testkit import evidence as made
from testkit.waiting import at_most
from tests.server.policy.given_codes import given_codes

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def verdict(kind: VerdictKind, *codes: str, mode: Mode = Mode.ENFORCE) -> Verdict:
    decision = made.decision(kind, codes=codes, mode=mode, remedy=Remedy.NONE)
    return made.verdict(decision, decision_id="decision-1")


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def sample(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_the_metrics_can_be_what_the_gate_reports_to(metrics: Metrics) -> None:
    observer: GateObserver = metrics
    observer.queue_depth(3)
    observer.inflight_bytes(7)
    observer.cache("hit")
    observer.shared_flight()
    observer.queue_wait_seconds(0.5)
    assert sample(metrics, "loragate_queue_depth") == 3
    assert sample(metrics, "loragate_inflight_bytes") == 7
    assert sample(metrics, "loragate_cache_requests_total", result="hit") == 1
    assert sample(metrics, "loragate_shared_flights_total") == 1
    assert sample(metrics, "loragate_queue_wait_seconds_sum") == 0.5


@pytest.mark.parametrize("observer", [GateObserver, CallObserver, CheckObserver])
def test_the_metrics_hear_everything_that_observers_are_told(observer: type) -> None:
    told = [name for name in vars(observer) if not name.startswith("_")]
    assert told
    assert [name for name in told if getattr(Metrics, name) is getattr(observer, name)] == []


def test_every_series_is_there_before_the_first_event(metrics: Metrics) -> None:
    for kind in VerdictKind:
        for reason in DECISION_REASONS:
            labels = {"verdict": kind.value, "reason": reason}
            assert sample(metrics, "loragate_decisions_total", **labels) == 0
    for refusal in ErrorReason:
        assert sample(metrics, "loragate_refusals_total", reason=refusal.value) == 0
    for code in CODES:
        labels = {
            "grpc_type": "unary",
            "grpc_service": "loragate.v1.AuditService",
            "grpc_method": "Audit",
            "grpc_code": code,
        }
        assert sample(metrics, "grpc_server_handled_total", **labels) == 0


def test_events_add_no_series(metrics: Metrics) -> None:
    before = series(metrics)
    for kind in VerdictKind:
        metrics.decision(verdict(kind, "concept_learned"))
        metrics.decision(verdict(kind, "a code from the future"))
        metrics.decision(verdict(kind))
        metrics.recorded(verdict(kind))
    for reason in ErrorReason:
        metrics.failure(reason)
    for action in REVIEW_ACTIONS:
        metrics.review(action)
    for setting in FAIL_OPEN_SETTINGS:
        metrics.fail_open(setting, True)
    metrics.stage_seconds("a stage from the future", 1.0)
    for method in served_methods():
        metrics.call_started(method.path)
        metrics.call_handled(method.path, "OK", 0.1, "request-1")
    metrics.call_started("/no.Such/Method")
    metrics.call_handled("/no.Such/Method", "NO_SUCH_CODE", 0.1)
    assert series(metrics) == before


def series(metrics: Metrics) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
    return {
        (one.name, tuple(sorted(one.labels.items())))
        for family in metrics.registry.collect()
        for one in family.samples
    }


def test_a_decision_is_counted_under_its_first_reason(metrics: Metrics) -> None:
    metrics.decision(verdict(VerdictKind.BLOCK, "concept_learned", "unmapped_keys"))
    labels = {"verdict": "BLOCK", "reason": "concept_learned"}
    assert sample(metrics, "loragate_decisions_total", **labels) == 1


def test_no_reason_that_the_sources_give_is_counted_as_another_one(metrics: Metrics) -> None:
    for code in sorted(given_codes()):
        metrics.decision(verdict(VerdictKind.REVIEW, code))
        labels = {"verdict": "REVIEW", "reason": code}
        assert sample(metrics, "loragate_decisions_total", **labels) == 1
    others = {"verdict": "REVIEW", "reason": "other"}
    assert sample(metrics, "loragate_decisions_total", **others) == 0


def test_a_pilot_decision_that_would_have_blocked_is_told_apart(metrics: Metrics) -> None:
    blocked = verdict(VerdictKind.BLOCK, "concept_learned", mode=Mode.PILOT)
    allowed = replace(blocked.decision, verdict=VerdictKind.ALLOW)
    metrics.decision(replace(blocked, decision=allowed))
    labels = {"verdict": "ALLOW", "reason": "pilot_mode"}
    assert sample(metrics, "loragate_decisions_total", **labels) == 1
    pilot = "loragate_pilot_decisions_total"
    assert sample(metrics, pilot, would_be_verdict="BLOCK") == 1


def test_a_decision_that_could_not_be_logged_is_counted_twice(metrics: Metrics) -> None:
    metrics.failure(ErrorReason.DECISION_LOG_UNAVAILABLE)
    assert sample(metrics, "loragate_log_write_failures_total") == 1
    assert sample(metrics, "loragate_refusals_total", reason="DECISION_LOG_UNAVAILABLE") == 1


def test_what_is_written_down_is_counted_by_what_the_policy_decided(metrics: Metrics) -> None:
    blocked = verdict(VerdictKind.BLOCK, "concept_learned", mode=Mode.PILOT)
    pilot = replace(blocked, decision=replace(blocked.decision, verdict=VerdictKind.ALLOW))
    metrics.recorded(pilot)
    metrics.recorded(replace(pilot, dry_run=True))
    name = "loragate_recorded_decisions_total"
    assert sample(metrics, name, verdict="BLOCK") == 1
    assert sample(metrics, name, verdict="ALLOW") == 0


def test_the_time_of_an_audit_is_that_of_all_its_stages(metrics: Metrics) -> None:
    audited = replace(verdict(VerdictKind.ALLOW), stage_times_s={"queued": 1.5, "screen": 0.25})
    metrics.decision(audited)
    metrics.decision(replace(audited, cached=True))
    assert sample(metrics, "loragate_audit_seconds_sum") == 1.75
    assert sample(metrics, "loragate_audit_seconds_count") == 1


def test_reviews_are_counted_by_action_and_another_action_is_refused(metrics: Metrics) -> None:
    metrics.review("approve")
    assert sample(metrics, "loragate_reviews_total", action="approve") == 1
    assert sample(metrics, "loragate_reviews_total", action="reject") == 0
    with pytest.raises(ValueError, match="approve, reject, reopen"):
        metrics.review("shrug")


def test_open_reviews_have_no_value_until_they_are_counted_and_while_they_cannot_be(
    metrics: Metrics,
) -> None:
    name = "loragate_reviews_open"
    assert sample(metrics, name) is None
    metrics.follow_open_reviews(lambda: 3.0)
    assert sample(metrics, name) == 3

    def broken() -> float:
        raise RuntimeError("no database")

    metrics.follow_open_reviews(broken)
    assert sample(metrics, name) is None
    assert sample(metrics, "loragate_ready") == 0


def test_library_and_calibration_are_those_of_the_moment_of_the_scrape(metrics: Metrics) -> None:
    served: list[ServedState] = []
    metrics.follow_served(lambda: served)
    state = "loragate_calibration_state"
    assert sample(metrics, state, base_model="sdxl", state="in_force") is None
    served.append(ServedState("sdxl", "a" * 64, "in_force", "c" * 64, 1234.5))
    assert sample(metrics, "loragate_library_info", digest="a" * 12) == 1
    assert sample(metrics, state, base_model="sdxl", state="in_force") == 1
    assert sample(metrics, state, base_model="sdxl", state="stale") == 0
    digest = {"base_model": "sdxl", "digest": "c" * 12}
    assert sample(metrics, "loragate_calibration_info", **digest) == 1
    written = "loragate_calibration_timestamp_seconds"
    assert sample(metrics, written, base_model="sdxl") == 1234.5
    served[:] = [ServedState("sdxl", "b" * 64, "stale")]
    assert sample(metrics, "loragate_library_info", digest="a" * 12) is None
    assert sample(metrics, "loragate_library_info", digest="b" * 12) == 1
    assert sample(metrics, state, base_model="sdxl", state="stale") == 1
    assert sample(metrics, "loragate_calibration_info", **digest) is None
    assert sample(metrics, written, base_model="sdxl") is None


@pytest.mark.parametrize(
    ("backend", "devices", "fallback"),
    [
        ("reference", ["cpu"], 0),
        ("reference", ["cpu", "cuda:1"], 1),
        ("triton", ["cuda"], 0),
    ],
)
def test_kernels_fall_back_where_a_gpu_is_not_used_for_them(
    metrics: Metrics, backend: str, devices: list[str], fallback: int
) -> None:
    metrics.kernel_backend(backend, devices)
    assert sample(metrics, "loragate_kernel_fallback") == fallback


def test_a_pilot_is_told_as_long_as_it_lasts(metrics: Metrics, tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_bytes(EMBEDDED_POLICY.read_bytes())
    policies = PolicyStore(file)
    metrics.follow_policy(policies)
    name = "loragate_fail_open_setting"
    assert sample(metrics, name, setting="policy_pilot") == 0
    file.write_text(EMBEDDED_POLICY.read_text().replace("mode: enforce", "mode: pilot"))
    assert policies.reload()
    assert sample(metrics, name, setting="policy_pilot") == 1
    assert sample(metrics, name, setting="intercept_dry_run") == 0


@pytest.mark.parametrize("reason", [*RECORD_FAILURES, "REQUEST_INVALID"])
def test_why_nothing_can_be_written_down_is_told_at_every_scrape(
    metrics: Metrics, reason: str
) -> None:
    def check() -> None:
        if reason == "NO_ANSWER":
            raise RuntimeError("something else")
        raise NoDecisionError(ErrorReason(reason), "It fails.", remedy="Mend it.")

    told = reason if reason in RECORD_FAILURES else "NO_ANSWER"
    name = "loragate_record_failure"
    assert all(sample(metrics, name, reason=one) == 0 for one in RECORD_FAILURES)
    metrics.follow_record(check)
    for one in RECORD_FAILURES:
        assert sample(metrics, name, reason=one) == float(one == told)
    metrics.follow_record(lambda: None)
    assert all(sample(metrics, name, reason=one) == 0 for one in RECORD_FAILURES)


def test_a_scrape_does_not_wait_for_a_database_that_hangs(metrics: Metrics) -> None:
    let_go, asked = threading.Event(), []

    def check() -> None:
        asked.append(time.monotonic())
        assert let_go.wait(120)

    metrics.follow_record(check)
    began_s = time.monotonic()
    for _ in range(2):
        assert sample(metrics, "loragate_record_failure", reason="NO_ANSWER") == 1
    assert time.monotonic() - began_s < at_most(4)
    let_go.set()
    assert sample(metrics, "loragate_record_failure", reason="NO_ANSWER") == 0
    assert len(asked) == 1


def test_exemplars_are_in_openmetrics_and_not_in_the_text_format(metrics: Metrics) -> None:
    metrics.decision(verdict(VerdictKind.BLOCK, "concept_learned"))
    metrics.call_handled("/loragate.v1.AuditService/Audit", "OK", 0.1, "r" * 500)
    metrics.call_handled("/loragate.v1.AuditService/Audit", "OK", 0.1, "request-1")
    opened = generate_openmetrics(metrics.registry).decode()
    assert '# {decision_id="decision-1"} 1.0' in opened
    assert '# {request_id="request-1"} 0.1' in opened
    assert "decision-1" not in generate_latest(metrics.registry).decode()


def test_the_policy_in_force_is_told_by_twelve_digits_of_its_digest(
    metrics: Metrics, tmp_path: Path
) -> None:
    file = tmp_path / "policy.yaml"
    file.write_bytes(EMBEDDED_POLICY.read_bytes())
    policies = PolicyStore(file)
    metrics.follow_policy(policies)
    first, when = policies.current.digest, policies.last_reload_timestamp_s
    assert sample(metrics, "loragate_policy_info", revision=first[:12]) == 1
    assert sample(metrics, "loragate_policy_last_reload_timestamp_seconds") == when

    file.write_bytes(EMBEDDED_POLICY.read_bytes() + b"\n# changed\n")
    assert policies.reload()
    assert sample(metrics, "loragate_policy_info", revision=first[:12]) is None
    assert sample(metrics, "loragate_policy_info", revision=policies.current.digest[:12]) == 1

    file.write_text("mode: [")
    assert not policies.reload()
    assert sample(metrics, "loragate_policy_last_reload_success") == 0
    assert sample(metrics, "loragate_policy_info", revision=policies.current.digest[:12]) == 1


def test_compilations_are_asked_for_at_every_scrape_and_have_no_value_before(
    metrics: Metrics,
) -> None:
    name = "loragate_kernel_compilations_total"
    counts = [None, 0, 2]
    assert sample(metrics, name) is None
    metrics.follow_compilations(lambda: counts[0])
    assert sample(metrics, name) is None
    assert f"# TYPE {name} counter" in generate_latest(metrics.registry).decode()
    counts.pop(0)
    assert sample(metrics, name) == 0
    counts.pop(0)
    assert sample(metrics, name) == 2
    assert f"{name} 2.0" in generate_openmetrics(metrics.registry).decode()


def test_the_expiry_of_the_certificate_follows_its_file(metrics: Metrics, tmp_path: Path) -> None:
    ca, file = trustme.CA(), tmp_path / "tls.pem"
    name = "loragate_certificate_expiry_timestamp_seconds"
    assert sample(metrics, name) == 0
    for year in (2040, 2050):
        until = datetime(year, 1, 1, tzinfo=UTC)
        ca.issue_cert("localhost", not_after=until).cert_chain_pems[0].write_to_path(file)
        if year == 2040:
            metrics.follow_certificate(file)
        assert sample(metrics, name) == until.timestamp()
    file.write_text("torn")
    assert sample(metrics, name) == until.timestamp()
    with pytest.raises(ValueError, match="PEM"):
        Metrics().follow_certificate(file)
