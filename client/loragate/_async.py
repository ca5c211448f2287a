"""What `aio` does otherwise than `client`, which is made from it; `_sync` has the same names."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any

import grpc

from loragate._call import Call
from loragate._core import Core
from loragate.reference import INLINE_LIMIT_BYTES, AuditOptions, Source
from loragate.results import AuditResult

GRPC: Any = grpc.aio
"""What opens channels."""


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
