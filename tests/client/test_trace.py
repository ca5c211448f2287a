"""The caller's trace goes along, if there is one."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from loragate import AuditError


async def test_a_call_within_a_span_names_it(client: Any, fake: Any) -> None:
    with TracerProvider().get_tracer("caller").start_as_current_span("load") as span:
        await client.audit(b"adapter")
    context = span.get_span_context()
    named = fake.calls[0].metadata["traceparent"]
    ids = f"{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    assert named == f"00-{ids}"


async def test_a_call_outside_a_span_names_none(client: Any, fake: Any) -> None:
    await client.audit(b"adapter")
    assert "traceparent" not in fake.calls[0].metadata


def test_a_caller_without_opentelemetry_does_not_load_it() -> None:
    program = (
        "import sys\nfrom loragate._channel import CallSpan, call_metadata\n"
        "from loragate.config import ClientConfig\n"
        "span = CallSpan('loragate.v1.AuditService/Audit', 'audit')\n"
        "assert call_metadata(ClientConfig('127.0.0.1:1'), span) == ()\n"
        "span.end(None)\n"
        "assert 'opentelemetry' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """The finished spans of this process."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    return exporter


async def test_a_call_is_a_span_of_its_own_and_its_attempts_name_it(
    client: Any, fake: Any, spans: InMemorySpanExporter
) -> None:
    with TracerProvider().get_tracer("caller").start_as_current_span("load") as parent:
        result = await client.audit(b"adapter")
    [span] = spans.get_finished_spans()
    assert span.name == "loragate.v1.AuditService/Audit"
    assert span.parent is not None
    assert span.parent.span_id == parent.get_span_context().span_id
    assert span.attributes is not None
    assert span.attributes["rpc.method"] == "Audit"
    assert span.attributes["loragate.verdict"] == "ALLOW"
    assert span.attributes["loragate.decision_id"] == result.decision_id
    assert span.attributes["loragate.attempts"] == 1
    assert f"{span.context.span_id:016x}" in fake.calls[0].metadata["traceparent"]


async def test_a_failure_is_named_by_its_reason_and_quotes_nothing(
    client: Any, fake: Any, spans: InMemorySpanExporter
) -> None:
    fake.fail_next("FILE_TRUNCATED", message="secret-name.safetensors is short.")
    with pytest.raises(AuditError):
        await client.audit(b"adapter")
    [span] = spans.get_finished_spans()
    assert span.status.status_code is trace.StatusCode.ERROR
    assert span.attributes is not None
    assert span.attributes["error.type"] == "FILE_TRUNCATED"
    assert "secret-name" not in span.to_json()


async def test_a_stream_is_one_span_and_leaves_none_behind_in_its_caller(
    client: Any, spans: InMemorySpanExporter
) -> None:
    before = trace.get_current_span()
    events = await client.collect("watch", b"adapter")
    assert trace.get_current_span() is before
    [span] = spans.get_finished_spans()
    assert span.attributes is not None
    assert span.attributes["loragate.decision_id"] == events[-1].decision_id


async def test_each_of_many_is_a_child_of_the_span_that_asked(
    client: Any, spans: InMemorySpanExporter
) -> None:
    with TracerProvider().get_tracer("caller").start_as_current_span("load") as parent:
        await client.collect("audit_many", [b"a", b"b", b"c"])
    wanted = parent.get_span_context().span_id
    parents = [one.parent.span_id for one in spans.get_finished_spans() if one.parent]
    assert parents == [wanted] * 3
