"""Spans of the client's own, where the caller's process traces, and the trace that goes along.

OpenTelemetry is not needed, and not loaded: whoever traces has loaded it before there is a call.
"""

from __future__ import annotations

import sys
from typing import Any

from loragate._target import DEFAULT_TARGET
from loragate.errors import AuditError

_SCOPE = "loragate"


class CallSpan:
    """The span of one call with all its attempts; nothing where nobody traces.

    It is passed on explicitly and never made the current one: a generator that is left half read
    would leave it behind in its caller. What it holds names no adapter, no path and no token.
    """

    def __init__(self, method: str, operation: str, target: str = DEFAULT_TARGET) -> None:
        """Begins it, as a child of the span that the caller is in.

        Args:
            method: full name, for example "loragate.v1.AuditService/Audit".
            operation: what the user called.
            target: of the client.
        """
        self._span: Any = None
        self._attempts = 0
        if "opentelemetry.trace" not in sys.modules:
            return
        from opentelemetry import trace

        service, _, name = method.rpartition("/")
        self._span = trace.get_tracer(_SCOPE).start_span(
            method,
            kind=trace.SpanKind.CLIENT,
            attributes={
                "rpc.system": "grpc",
                "rpc.service": service,
                "rpc.method": name,
                "server.address": target,
                "loragate.operation": operation,
            },
        )

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """W3C Trace Context of the next attempt; empty where nobody traces."""
        self._attempts += 1
        if self._span is None:
            return ()
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        carrier: dict[str, str] = {}
        context = trace.set_span_in_context(self._span)
        TraceContextTextMapPropagator().inject(carrier, context=context)
        return tuple(carrier.items())

    def end(self, outcome: object) -> None:
        """Ends it; only the first call counts.

        Args:
            outcome: the result, or the error for which there is none; None where the caller does
                not wait for it any more.
        """
        span, self._span = self._span, None
        if span is None:
            return
        from opentelemetry.trace import Status, StatusCode

        span.set_attribute("loragate.attempts", self._attempts)
        for name in ("verdict", "decision_id", "mode"):
            value = getattr(outcome, name, None)
            if value:
                span.set_attribute(f"loragate.{name}", str(getattr(value, "name", value)))
        if isinstance(outcome, BaseException):
            told = outcome.reason or outcome.code if isinstance(outcome, AuditError) else ""
            kind = told or type(outcome).__name__
            span.set_attribute("error.type", kind)
            # The sentence of an error may quote what the caller sent.
            span.set_status(Status(StatusCode.ERROR, kind))
        span.end()
