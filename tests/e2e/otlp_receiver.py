"""A collector: the real OTLP service over gRPC, which keeps every span that it is sent."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as wire
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc


@dataclass(frozen=True)
class Received:
    """One span as it was sent."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, Any]
    links: tuple[str, ...]
    error: bool
    events: tuple[str, ...]
    seconds: float
    kind: int


@dataclass
class Receiver(trace_service_pb2_grpc.TraceServiceServicer):  # type: ignore[misc]
    """Keeps spans. Thread-safe."""

    address: str = ""
    resource: dict[str, Any] = field(default_factory=dict)
    _spans: list[Received] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def Export(  # noqa: N802
        self, request: wire.ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> wire.ExportTraceServiceResponse:
        with self._lock:
            for group in request.resource_spans:
                self.resource = _values(group.resource.attributes)
                self._spans += [_read(span) for scope in group.scope_spans for span in scope.spans]
        return wire.ExportTraceServiceResponse()

    @property
    def spans(self) -> list[Received]:
        with self._lock:
            return list(self._spans)

    def wait_for(self, wanted: Callable[[Received], bool], limit_s: float = 15.0) -> Received:
        """The first span that is wanted, as soon as it is there."""
        end_s = time.monotonic() + limit_s
        while True:
            found = next(filter(wanted, self.spans), None)
            if found is not None:
                return found
            names = [span.name for span in self.spans]
            assert time.monotonic() < end_s, f"no such span came; there are {names}"
            time.sleep(0.05)

    def of(self, trace_id: str) -> dict[str, Received]:
        """The spans of a trace by name."""
        return {span.name: span for span in self.spans if span.trace_id == trace_id}


@contextmanager
def receiver() -> Iterator[Receiver]:
    """Listens on a free port of loopback."""
    server = grpc.server(ThreadPoolExecutor(2))
    one = Receiver()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(one, server)
    one.address = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield one
    finally:
        server.stop(None).wait()


def _read(span: Any) -> Received:
    return Received(
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        attributes=_values(span.attributes),
        links=tuple(link.span_id.hex() for link in span.links),
        error=span.status.code == 2,
        events=tuple(event.name for event in span.events),
        seconds=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
        kind=span.kind,
    )


def _values(attributes: Any) -> dict[str, Any]:
    return {one.key: _value(one.value) for one in attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, kind)
