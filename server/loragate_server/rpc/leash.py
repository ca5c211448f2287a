"""A call's deadline and cancellation, as a `Leash`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from loragate_server.progress import Leash, Report, silent


@contextmanager
def call_leash(
    context: grpc.aio.ServicerContext,
    report: Report = silent,
    *,
    spare_s: float = 0.0,
    at_most_s: float | None = None,
) -> Iterator[Leash]:
    """A leash that holds as long as the caller waits.

    grpc.aio cancels the handler when the client goes away or its deadline passes.

    Args:
        context: of the call.
        report: told the progress.
        spare_s: the leash ends so long before the deadline, or after nine tenths of the time if
            that is later, so that the caller can still be told.
        at_most_s: how long it holds where the caller waits longer.
    """
    remaining_s = context.time_remaining()
    limits = [] if remaining_s is None else [_within(remaining_s, spare_s)]
    limits += [] if at_most_s is None else [at_most_s]
    deadline = time.monotonic() + min(limits) if limits else None
    leash = Leash(deadline_monotonic_s=deadline, report=report)
    try:
        yield leash
    except asyncio.CancelledError:
        leash.cancel()
        raise


def _within(remaining_s: float, spare_s: float) -> float:
    return max(remaining_s - spare_s, 0.9 * remaining_s) if spare_s else remaining_s
