"""Ask loragate whether a LoRA adapter may be loaded, before an image server loads it.

    from loragate import AuditClient

    with AuditClient("127.0.0.1:50051") as client:
        result = client.audit_file("style.safetensors")
        print(result.verdict, result.reasons)

The clients are imported when they are first used, so that `import loragate` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from loragate.blocked import AdapterBlocked
from loragate.config import TlsConfig
from loragate.errors import (
    AuditError,
    Cancelled,
    DeadlineExceeded,
    Exhausted,
    Internal,
    InvalidAdapter,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
)
from loragate.fail_open import fail_open_total
from loragate.listing import ListOptions
from loragate.many import Audited
from loragate.reference import AdapterKind, AdapterReference, AuditOptions
from loragate.results import (
    SERVICE_UNAVAILABLE,
    AuditedAdapter,
    AuditResult,
    Concept,
    ConceptRole,
    Digests,
    Finding,
    KeyCoverage,
    LeftOut,
    Measured,
    MeasureKind,
    Mode,
    Progress,
    Reason,
    Remedy,
    Severity,
    Verdict,
)
from loragate.retries import RetryPolicy

if TYPE_CHECKING:
    from loragate.aio import AsyncAuditClient
    from loragate.client import AuditClient

__version__ = "0.1.0"

__all__ = [
    "SERVICE_UNAVAILABLE",
    "AdapterBlocked",
    "AdapterKind",
    "AdapterReference",
    "AsyncAuditClient",
    "AuditClient",
    "AuditError",
    "AuditOptions",
    "AuditResult",
    "Audited",
    "AuditedAdapter",
    "Cancelled",
    "Concept",
    "ConceptRole",
    "DeadlineExceeded",
    "Digests",
    "Exhausted",
    "Finding",
    "Internal",
    "InvalidAdapter",
    "InvalidRequest",
    "KeyCoverage",
    "LeftOut",
    "ListOptions",
    "MeasureKind",
    "Measured",
    "Mode",
    "NotFound",
    "PermissionDenied",
    "Progress",
    "Reason",
    "Remedy",
    "RetryPolicy",
    "Severity",
    "TlsConfig",
    "Unauthenticated",
    "Unavailable",
    "Verdict",
    "fail_open_total",
]

_LAZY = {"AuditClient": "loragate.client", "AsyncAuditClient": "loragate.aio"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return __all__
