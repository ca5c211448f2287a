"""Passes the caller's trace on, where the caller's process has one."""

from __future__ import annotations

import sys


def trace_metadata() -> tuple[tuple[str, str], ...]:
    """W3C Trace Context of the span that the caller is in; empty without one.

    OpenTelemetry is not needed: whoever traces has loaded it before there is a span.
    """
    if "opentelemetry.trace" not in sys.modules:
        return ()
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return tuple(carrier.items())
