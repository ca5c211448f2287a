"""Real spans, by the OpenTelemetry SDK, sent to a collector in batches.

Only loaded where tracing is on; needs the extra `tracing`.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from loragate_server import __version__
from loragate_server.errors import NoDecisionError
from loragate_server.tracing.tracer import CURRENT, Span, Value

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

    from loragate_server.config.tracing import TracingSection

FLUSH_LIMIT_S = 5.0
"""How long the last spans may take to leave when the server stops."""

_log = logging.getLogger(__name__)
_PROPAGATOR = TraceContextTextMapPropagator()


class Tracing:
    """Makes the span of every call, and sends spans away until it is closed."""

    def __init__(self, section: TracingSection, exporter: SpanExporter | None = None) -> None:
        """Starts the thread that sends; it tries again while the collector does not answer."""
        self._provider = TracerProvider(
            sampler=ParentBasedTraceIdRatio(section.sample_ratio),
            resource=Resource.create(
                {
                    "service.name": section.service_name,
                    "service.version": __version__,
                    "service.instance.id": f"{socket.gethostname()}-{os.getpid()}",
                }
            ),
            shutdown_on_exit=False,  # `close` does it, and has a limit
        )
        self._exporter = exporter or OTLPSpanExporter(
            endpoint=section.endpoint, insecure=section.endpoint.startswith("http://")
        )
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("loragate_server", __version__)

    def serve(
        self, name: str, headers: Mapping[str, str], attributes: Mapping[str, Value]
    ) -> ExportedSpan:
        """Starts the span of a call that arrived, within the trace that its headers name."""
        context = _PROPAGATOR.extract(headers, context=Context())
        span = self._tracer.start_span(
            name, context, kind=trace.SpanKind.SERVER, attributes=dict(attributes)
        )
        return ExportedSpan(self._tracer, span, serves=True)

    def close(self) -> None:
        """Sends what is left, within `FLUSH_LIMIT_S`. Blocks."""
        # The SDK takes no limit: it tries for half a minute while the collector does not answer.
        closing = threading.Thread(target=self._provider.shutdown, name="last-spans", daemon=True)
        closing.start()
        closing.join(FLUSH_LIMIT_S)
        if closing.is_alive():
            _log.warning("the last spans did not reach the collector within %g s", FLUSH_LIMIT_S)
            self._exporter.shutdown()


class ExportedSpan:
    """A `tracing.Span` of the OpenTelemetry SDK."""

    def __init__(self, tracer: trace.Tracer, span: trace.Span, *, serves: bool = False) -> None:
        """Wraps a span; `serves` says that it is that of a call, which may fail by its caller."""
        self._tracer = tracer
        self._span = span
        self._serves = serves
        self._has_failed = False
        self._context = span.get_span_context()

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits."""
        return trace.format_trace_id(self._context.trace_id)

    @property
    def span_id(self) -> str:
        """16 hexadecimal digits."""
        return trace.format_span_id(self._context.span_id)

    @property
    def sampled(self) -> bool:
        """Whether it is sent."""
        return bool(self._context.trace_flags.sampled)

    def set(self, name: str, value: Value | tuple[str, ...]) -> None:
        """Sets an attribute."""
        self._span.set_attribute(name, value)

    def link(self, other: Span) -> None:
        """Links to another span of ours."""
        if isinstance(other, ExportedSpan):
            self._span.add_link(other._context)

    def failed(self, error: BaseException) -> None:
        """Records the error and its reason."""
        if self._has_failed:
            return
        self._has_failed = True
        reason = error.reason.value if isinstance(error, NoDecisionError) else type(error).__name__
        self._span.set_attribute("error.type", reason)
        self._span.record_exception(error)
        if not self._serves:
            self.fault(reason)

    def fault(self, description: str) -> None:
        """Sets the status."""
        self._span.set_status(trace.StatusCode.ERROR, description)

    def start(self, name: str) -> ExportedSpan:
        """Starts a child."""
        return ExportedSpan(self._tracer, self._tracer.start_span(name, self._inside()))

    def took(self, name: str, seconds: float, ended_ago_s: float) -> None:
        """Adds a child that has ended."""
        ended_ns = time.time_ns() - round(ended_ago_s * 1e9)
        began_ns = ended_ns - round(seconds * 1e9)
        self._tracer.start_span(name, self._inside(), start_time=began_ns).end(ended_ns)

    def active(self) -> AbstractContextManager[None]:
        """The code inside belongs to it."""
        return self._active()

    @contextmanager
    def _active(self) -> Iterator[None]:
        token = CURRENT.set(self)
        try:
            yield
        except BaseException as error:
            self.failed(error)
            raise
        finally:
            CURRENT.reset(token)
            self._span.end()

    def _inside(self) -> Context:
        return trace.set_span_in_context(self._span, Context())
