"""Tracing as the configuration wants it."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from loragate_server.config.schema import Config, StartError
from loragate_server.metrics.metrics import Metrics
from loragate_server.metrics.traced import TracedMetrics
from loragate_server.tracing.tracer import Tracer


def make_metrics(config: Config) -> Metrics:
    """Metrics that know of traces where there are any."""
    return TracedMetrics() if config.tracing.enabled else Metrics()


def open_tracer(config: Config, stack: AsyncExitStack) -> Tracer | None:
    """The tracer, whose last spans are sent when the stack is closed; None where it is off.

    Raises:
        StartError: the extra `tracing` is not installed.
    """
    if not config.tracing.enabled:
        return None
    try:
        from loragate_server.tracing.export import Tracing
    except ModuleNotFoundError as error:
        raise StartError(
            "tracing.enabled needs the extra `tracing`: pip install 'loragate-server[tracing]'"
        ) from error
    tracing = Tracing(config.tracing)
    stack.push_async_callback(asyncio.to_thread, tracing.close)
    return tracing
