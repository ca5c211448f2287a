"""Spans as the SDK of OpenTelemetry makes them, and their absence where tracing is off."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from contextvars import copy_context

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from loragate_server.app.tracing import open_tracer
from loragate_server.config.schema import Config, StartError
from loragate_server.config.tracing import TracingSection
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.gate.flight import SharedLeash, SingleFlight
from loragate_server.metrics.series import exemplar
from loragate_server.progress import Leash
from loragate_server.tracing import export as tracing_export
from loragate_server.tracing.export import ExportedSpan, Tracing
from loragate_server.tracing.tracer import CURRENT, note, stage, took, trace_id
from testkit.waiting import at_most

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
NOT_SAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-00"}


class Collected:
    """A tracer whose spans stay here."""

    def __init__(self, sample_ratio: float = 1.0) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracing = Tracing(TracingSection(sample_ratio=sample_ratio), self.exporter)

    def serve(self, headers: dict[str, str] | None = None) -> ExportedSpan:
        return self.tracing.serve("call", headers or {}, {"rpc.system.name": "grpc"})

    def spans(self) -> dict[str, ReadableSpan]:
        """By name; closes the tracer."""
        self.tracing.close()
        return {span.name: span for span in self.exporter.get_finished_spans()}


@pytest.fixture
def collected() -> Iterator[Collected]:
    one = Collected()
    yield one
    one.tracing.close()


def ids(span: ReadableSpan) -> tuple[str, str]:
    assert span.context is not None
    parent = "" if span.parent is None else f"{span.parent.span_id:016x}"
    return f"{span.context.trace_id:032x}", parent


def test_a_call_continues_the_trace_of_its_headers(collected: Collected) -> None:
    with collected.serve(SAMPLED).active():
        assert trace_id() == TRACE
    assert ids(collected.spans()["call"]) == (TRACE, PARENT)


@pytest.mark.parametrize("headers", [{}, {"traceparent": "00-xyz-1-01"}, {"traceparent": ""}])
def test_a_call_without_a_usable_trace_begins_one(
    collected: Collected, headers: dict[str, str]
) -> None:
    with collected.serve(headers).active():
        begun = trace_id()
    assert ids(collected.spans()["call"]) == (begun, "")


@pytest.mark.parametrize(
    ("ratio", "headers", "kept"),
    [(0.0, {}, False), (0.0, SAMPLED, True), (1.0, NOT_SAMPLED, False), (1.0, {}, True)],
)
def test_the_caller_decides_about_sampling_and_else_the_ratio(
    ratio: float, headers: dict[str, str], kept: bool
) -> None:
    collected = Collected(ratio)
    with collected.serve(headers).active():
        assert trace_id()
        assert bool(trace_id(sampled=True)) is kept
    assert ("call" in collected.spans()) is kept


def test_stages_are_children_on_whatever_thread_they_run(collected: Collected) -> None:
    with collected.serve().active(), stage("audit"):
        context = copy_context()

        def work() -> None:
            took("queued", 0.25)
            with stage("read"):
                note("loragate.adapter.sha256", ("a", "b"))

        thread = threading.Thread(target=context.run, args=(work,))
        thread.start()
        thread.join()
    spans = collected.spans()
    assert spans["audit"].context is not None
    audit = f"{spans['audit'].context.span_id:016x}"
    assert {ids(spans[name])[1] for name in ("queued", "read")} == {audit}
    queued = spans["queued"]
    assert queued.start_time is not None
    assert queued.end_time is not None
    assert (queued.end_time - queued.start_time) / 1e9 == pytest.approx(0.25)
    assert spans["read"].attributes == {"loragate.adapter.sha256": ("a", "b")}


def test_an_error_is_recorded_with_its_reason_where_it_happened(collected: Collected) -> None:
    refusal = NoDecisionError(ErrorReason.FILE_TRUNCATED, "Too short.", remedy="Send it again.")

    def refuse() -> None:
        with collected.serve().active(), stage("intake"):
            raise refusal

    with pytest.raises(NoDecisionError):
        refuse()
    spans = collected.spans()
    for name in ("intake", "call"):
        attributes = spans[name].attributes or {}
        assert attributes["error.type"] == "FILE_TRUNCATED"
        assert [event.name for event in spans[name].events] == ["exception"]
    assert spans["intake"].status.status_code is StatusCode.ERROR
    # Whether a call is an error of the server depends on its status, which is not known here.
    assert spans["call"].status.status_code is StatusCode.UNSET


async def test_a_call_that_joins_a_flight_links_to_it(collected: Collected) -> None:
    flights: SingleFlight[str, str] = SingleFlight()
    may_end = asyncio.Event()

    async def work(_: SharedLeash) -> str:
        await may_end.wait()
        return trace_id()

    async def call(number: int) -> tuple[str, str]:
        span = collected.tracing.serve(f"call {number}", {}, {})
        with span.active():
            return trace_id(), await flights.run("key", work, Leash())

    calls = [asyncio.create_task(call(number)) for number in range(3)]
    await asyncio.sleep(0.05)
    may_end.set()
    traces = [await each for each in calls]
    assert {made for _, made in traces} == {traces[0][0]}
    spans = collected.spans()
    assert spans["audit"].context is not None
    for joined in ("call 1", "call 2"):
        assert [link.context.span_id for link in spans[joined].links] == [
            spans["audit"].context.span_id
        ]
    assert spans["call 0"].links == ()


def test_exemplars_name_traces_that_are_kept(collected: Collected) -> None:
    assert exemplar("request_id", "r1") == {"request_id": "r1"}
    with collected.serve(SAMPLED).active():
        assert exemplar("request_id", "r1") == {"trace_id": TRACE, "request_id": "r1"}
        assert exemplar("request_id", "r" * 100) == {"trace_id": TRACE}
    with collected.serve(NOT_SAMPLED).active():
        assert exemplar("request_id", "r1") == {"request_id": "r1"}


def test_a_collector_that_is_not_there_holds_up_the_end_no_longer_than_promised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tracing_export, "FLUSH_LIMIT_S", 1.0)
    tracing = Tracing(TracingSection(endpoint="http://127.0.0.1:1"))
    with tracing.serve("call", {}, {}).active():
        pass
    began = time.monotonic()
    tracing.close()
    assert time.monotonic() - began < at_most(3)


async def test_a_server_without_the_extra_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "loragate_server.tracing.export")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    config = Config(tracing=TracingSection(enabled=True))
    with pytest.raises(StartError, match=r"loragate-server\[tracing\]"):
        open_tracer(config, AsyncExitStack())


def test_without_tracing_nothing_of_it_is_loaded_and_nothing_is_done() -> None:
    program = (
        "import sys, loragate_server.rpc.server, loragate_server.gate.gate\n"
        "import loragate_server.logs.lines\n"
        "import loragate_server.app.tracing, loragate_server.web.traced, loragate.client\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
    assert CURRENT.get() is None
    assert trace_id() == ""
    with stage("read"):
        assert CURRENT.get() is None


@pytest.mark.parametrize(
    "endpoint",
    ["otel-collector:4317", "ftp://collector:4317", "http://", "http://c:4317/v1/traces"],
)
def test_an_endpoint_that_is_no_address_is_refused(endpoint: str) -> None:
    with pytest.raises(ValueError, match="is not an address like"):
        TracingSection(endpoint=endpoint)
