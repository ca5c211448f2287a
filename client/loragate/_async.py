"""What `aio` does otherwise than `client`, which is made from it; `_sync` has the same names."""

from __future__ import annotations

import asyncio
import os
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Sequence,
)
from itertools import islice
from typing import Any

import grpc

from loragate._call import Call
from loragate._core import Core
from loragate.errors import AuditError
from loragate.many import Audited, check_concurrency
from loragate.reference import INLINE_LIMIT_BYTES, AuditOptions, Source
from loragate.results import AuditResult

GRPC: Any = grpc.aio
"""What opens channels."""

INTERCEPTORS = (grpc.aio.ClientInterceptor,)
"""What a user's interceptors may be."""


async def sleep(seconds: float) -> None:
    """Waits, while the loop goes on."""
    await asyncio.sleep(seconds)


async def audit_call(
    core: Core, adapters: Source | Sequence[Source], options: AuditOptions
) -> Call[AuditResult]:
    """`Core.audit`."""
    large = isinstance(adapters, bytes) and len(adapters) > INLINE_LIMIT_BYTES
    if large or core.config.accept_signed is not None:
        # Hashing many bytes, or looking through a folder, is long enough to hold up the loop.
        return await asyncio.to_thread(core.audit, adapters, **options)
    return core.audit(adapters, **options)


async def audit_file_call(
    core: Core, path: str | os.PathLike[str], options: AuditOptions
) -> Call[AuditResult]:
    """`Core.audit_file`, which reads and would hold up the loop."""
    return await asyncio.to_thread(core.audit_file, path, **options)


def each(
    audit: Callable[..., Awaitable[AuditResult]],
    sources: Iterable[Any],
    most: int,
    options: AuditOptions,
    told: tuple[type[Exception], ...] = (AuditError,),
) -> AsyncIterator[Audited]:
    """Audits of many adapters, as they end; at most so many at a time.

    The next one is taken when there is room for it. Whoever stops early ends what is under way.

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

    async def one(index: int, source: Any) -> Audited:
        try:
            return Audited(index, source, await audit(source, **options))
        except told as error:
            return Audited(index, source, None, error)

    return _as_they_end(one, enumerate(sources), most)


async def _as_they_end(
    one: Callable[[int, Any], Coroutine[Any, Any, Audited]],
    numbered: Iterator[tuple[int, Any]],
    most: int,
) -> AsyncIterator[Audited]:
    busy: set[asyncio.Task[Audited]] = set()
    try:
        while True:
            for index, source in islice(numbered, most - len(busy)):
                busy.add(asyncio.create_task(one(index, source)))
            if not busy:
                return
            done, busy = await asyncio.wait(busy, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                yield task.result()
    finally:
        for task in busy:
            task.cancel()
        await asyncio.gather(*busy, return_exceptions=True)
