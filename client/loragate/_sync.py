"""What `client` does otherwise than `aio`, which it is made from; `_async` has the same names."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

import grpc

from loragate._call import Call
from loragate._core import Core
from loragate.reference import AuditOptions, Source
from loragate.results import AuditResult

GRPC: Any = grpc
"""What opens channels."""


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
