"""Traces of a real server process, sent to a real OTLP service, and where their ids turn up."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider

from loragate import AuditClient, AuditResult, InvalidAdapter
from loragate_server.config.schema import EMBEDDED_POLICY
from loragate_server.testing import ServerProcess
from testkit.servers import forked_server
from tests.e2e.otlp_receiver import Received, Receiver, receiver

ADAPTERS = Path(__file__).parents[2] / "examples" / "adapters"
HARMLESS = ADAPTERS / "harmless-watermelon.safetensors"
LEARNED = ADAPTERS / "learned-jack-o-lantern.safetensors"
SERVER_KIND = 2
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@dataclass(frozen=True)
class Traced:
    """A server that traces, and who gets its spans."""

    server: ServerProcess
    collector: Receiver
    state: Path


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    state = tmp_path_factory.mktemp("traced")
    policy = state / "policy.yaml"
    policy.write_bytes(EMBEDDED_POLICY.read_bytes())
    with receiver() as collector:
        settings = {
            "LORAGATE_TRACING__ENABLED": "true",
            "LORAGATE_TRACING__ENDPOINT": collector.address,
            "LORAGATE_LOG__FORMAT": "json",
            "LORAGATE_POLICY": str(policy),
            "LORAGATE_THREADS": "1",
            "LORAGATE_INTERCEPT__HTTP": "true",
            "LORAGATE_INTERCEPT__EXTRACTORS": '{"sglang": {"kind": "sglang"}}',
            "OTEL_BSP_SCHEDULE_DELAY": "500",
        }
        with forked_server(state, settings) as server:
            yield Traced(server, collector, state)


@contextmanager
def caller_span() -> Iterator[str]:
    """A span of the caller's own program; gives the id of its trace."""
    with TracerProvider().get_tracer("caller").start_as_current_span("load") as span:
        yield f"{span.get_span_context().trace_id:032x}"


def ask(traced: Traced, file: Path, strength: float) -> tuple[AuditResult, str]:
    with (
        AuditClient(traced.server.grpc, on_unavailable="raise") as client,
        caller_span() as trace_id,
    ):
        return client.audit_file(file, strength=strength), trace_id


def call_span(traced: Traced, trace_id: str) -> Received:
    """The span of the call that brought a decision."""
    return traced.collector.wait_for(
        lambda span: span.trace_id == trace_id and "loragate.verdict" in span.attributes
    )


def test_a_call_is_a_span_in_the_callers_trace_with_a_child_for_every_stage(
    traced: Traced,
) -> None:
    result, trace_id = ask(traced, LEARNED, 0.91)
    call = call_span(traced, trace_id)
    spans = traced.collector.of(trace_id)
    assert call.kind == SERVER_KIND
    assert call.parent_id != ""
    assert call.attributes["rpc.system.name"] == "grpc"
    assert call.attributes["rpc.method"] == "loragate.v1.AuditService/Audit"
    assert call.attributes["rpc.response.status_code"] == "OK"
    assert call.attributes["loragate.verdict"] == result.verdict.name == "BLOCK"
    assert call.attributes["loragate.decision_id"] == result.decision_id
    assert call.attributes["loragate.adapter.sha256"] == [
        hashlib.sha256(LEARNED.read_bytes()).hexdigest()
    ]
    assert call.attributes["loragate.cache"] == "miss"
    assert not call.error
    stages = ("queued", "read", "screen", "response", "policy", "record")
    assert {spans["intake"].parent_id, spans["audit"].parent_id} == {call.span_id}
    assert {spans[stage].parent_id for stage in stages} == {spans["audit"].span_id}
    for stage in ("read", "screen", "response"):
        assert spans[stage].seconds == pytest.approx(result.stage_times_s[stage], abs=0.05)
    assert traced.collector.resource["service.name"] == "loragate"


def test_the_trace_is_in_the_decision_log_in_the_metrics_and_in_the_log(traced: Traced) -> None:
    result, trace_id = ask(traced, HARMLESS, 0.92)
    log = (traced.state / "decisions.jsonl").read_text()
    lines = [json.loads(line) for line in log.splitlines()]
    verdicts = {line["verdict"]["decision_id"]: line["verdict"] for line in lines}
    assert verdicts[result.decision_id]["caller"]["trace_id"] == trace_id
    request = urllib.request.Request(
        f"http://{traced.server.http}/metrics",
        headers={"Accept": "application/openmetrics-text; version=1.0.0"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        exemplars = re.findall(r"# \{(.*?)\}", answer.read().decode())
    assert any(f'trace_id="{trace_id}"' in one and "decision_id" in one for one in exemplars)


def test_a_cached_answer_says_so_in_its_span(traced: Traced) -> None:
    first, _ = ask(traced, HARMLESS, 0.93)
    again, trace_id = ask(traced, HARMLESS, 0.93)
    call = call_span(traced, trace_id)
    assert again.cached
    assert again.decision_id == first.decision_id
    assert call.attributes["loragate.cache"] == "hit"
    assert "audit" not in traced.collector.of(trace_id)


def test_calls_that_share_an_audit_link_to_it(traced: Traced) -> None:
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(ask, traced, LEARNED, 0.94) for _ in range(3)]
        traces = [each.result()[1] for each in asked]
    calls = [call_span(traced, trace_id) for trace_id in traces]
    audits = [span for span in traced.collector.spans if span.name == "audit"]
    [audit] = [span for span in audits if span.trace_id in traces]
    joined = [call for call in calls if call.attributes.get("loragate.shared_flight")]
    assert len(joined) == 2
    assert {call.links for call in joined} == {(audit.span_id,)}


def test_a_refusal_is_recorded_with_its_reason_and_is_no_fault_of_the_server(
    traced: Traced,
) -> None:
    with (
        AuditClient(traced.server.grpc) as client,
        caller_span() as trace_id,
        pytest.raises(InvalidAdapter),
    ):
        client.audit(b"\x80\x04pickle")
    call = traced.collector.wait_for(
        lambda span: span.trace_id == trace_id and span.kind == SERVER_KIND
    )
    assert call.attributes["error.type"] == "PICKLE_REFUSED"
    assert call.attributes["rpc.response.status_code"] == "INVALID_ARGUMENT"
    assert call.events == ("exception",)
    assert not call.error
    intake = traced.collector.of(trace_id)["intake"]
    assert intake.error
    assert intake.attributes["error.type"] == "PICKLE_REFUSED"


def test_a_check_over_http_continues_the_trace_of_the_request(traced: Traced) -> None:
    request = urllib.request.Request(
        f"http://{traced.server.http}/v1/check",
        data=b'{"prompt": "a boat"}',
        headers={
            "X-Original-Method": "POST",
            "X-Original-URI": "/v1/images/generations",
            "Content-Type": "application/json",
            "traceparent": f"00-{TRACE}-{PARENT}-01",
        },
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 200
    span = traced.collector.wait_for(lambda span: span.trace_id == TRACE)
    assert span.parent_id == PARENT
    assert span.name == "check /v1/check"
    assert span.attributes["http.response.status_code"] == 200


def test_health_checks_are_no_spans(traced: Traced) -> None:
    names = {span.name for span in traced.collector.spans if span.kind == SERVER_KIND}
    assert not any("Health" in name for name in names)


def test_the_last_spans_are_sent_at_the_end_and_every_line_of_the_log_is_json(
    traced: Traced,
) -> None:
    policy = traced.state / "policy.yaml"
    policy.write_text("version: 1\nmode: permissive\n")
    wait_for_line(traced.server.log, "policy.yaml")
    _, trace_id = ask(traced, HARMLESS, 0.95)
    os.kill(traced.server.pid, signal.SIGTERM)
    assert traced.server.wait() == 0
    assert {"intake", "audit", "record"} <= traced.collector.of(trace_id).keys()
    lines = [json.loads(line) for line in traced.server.log.read_text().splitlines()]
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    assert {line["level"] for line in lines} > {"info"}


def wait_for_line(log: Path, word: str) -> None:
    end_s = time.monotonic() + 15
    while word not in log.read_text():
        assert time.monotonic() < end_s, f"no line with {word!r} came"
        time.sleep(0.05)
