"""A call's deadline and cancellation, as a `Leash`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from loragate_server.progress import Leash, Report, silent


@contextmanager
def call_leash(context: grpc.aio.ServicerContext, report: Report = silent) -> Iterator[Leash]:
    """A leash that holds as long as the caller waits.

    grpc.aio cancels the handler when the client goes away or its deadline passes.
    """
    remaining_s = context.time_remaining()
    deadline = None if remaining_s is None else time.monotonic() + remaining_s
    leash = Leash(deadline_monotonic_s=deadline, report=report)
    try:
        yield leash
    except asyncio.CancelledError:
        leash.cancel()
        raise
