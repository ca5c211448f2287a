"""What `client` does otherwise than `aio`, which it is made from; `_async` has the same names."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from itertools import islice
from typing import Any

import grpc

from loragate._call import Call
from loragate._core import Core
from loragate.errors import AuditError
from loragate.many import Audited, check_concurrency
from loragate.reference import AuditOptions, Source
from loragate.results import AuditResult

GRPC: Any = grpc
"""What opens channels."""

INTERCEPTORS = (
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
)
"""What a user's interceptors may be."""


def sleep(seconds: float) -> None:
    """Waits."""
    time.sleep(seconds)


def audit_call(
    core: Core, adapters: Source | Sequence[Source], options: AuditOptions
) -> Call[AuditResult]:
    """`Core.audit`."""
    return core.audit(adapters, **options)


def audit_file_call(
    core: Core, path: str | os.PathLike[str], options: AuditOptions
) -> Call[AuditResult]:
    """`Core.audit_file`."""
    return core.audit_file(path, **options)


def each(
    audit: Callable[..., AuditResult],
    sources: Iterable[Any],
    most: int,
    options: AuditOptions,
    told: tuple[type[Exception], ...] = (AuditError,),
) -> Iterator[Audited]:
    """Audits of many adapters, as they end; at most so many at a time.

    The next one is taken when there is room for it. Whoever stops early waits for what is under
    way, which a thread cannot be kept from finishing.

    Args:
        audit: of one of them.
        sources: the adapters.
        most: at a time.
        options: of every audit.
        told: what ends the audit of one adapter and not that of the others.

    Raises:
        ValueError: as `check_concurrency`.
    """
    check_concurrency(most)

    def one(index: int, source: Any) -> Audited:
        try:
            return Audited(index, source, audit(source, **options))
        except told as error:
            return Audited(index, source, None, error)

    return _as_they_end(one, enumerate(sources), most)


def _as_they_end(
    one: Callable[[int, Any], Audited], numbered: Iterator[tuple[int, Any]], most: int
) -> Iterator[Audited]:
    busy: set[Future[Audited]] = set()
    with ThreadPoolExecutor(most, thread_name_prefix="loragate-audit") as threads:
        while True:
            for index, source in islice(numbered, most - len(busy)):
                # The caller's span, and whatever else it is in, is that of the thread as well.
                busy.add(threads.submit(copy_context().run, one, index, source))
            if not busy:
                return
            done, busy = wait(busy, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
