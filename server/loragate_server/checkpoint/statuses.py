"""Which HTTP status a request gets that does not pass."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from loragate_server.errors import ErrorReason, NoDecisionError, spread
from loragate_server.intercept.extraction import Denial, RefusalCode

BAD_REQUEST, FORBIDDEN, TOO_LARGE, UNAVAILABLE = 400, 403, 413, 503

OF_REFUSALS: Mapping[RefusalCode, int] = MappingProxyType(
    {
        RefusalCode.BODY_INCOMPLETE: TOO_LARGE,
        RefusalCode.READING_TOO_LONG: TOO_LARGE,
        RefusalCode.BODY_UNREADABLE: BAD_REQUEST,
        RefusalCode.BODY_AMBIGUOUS: BAD_REQUEST,
        RefusalCode.ADAPTER_UNNAMED: BAD_REQUEST,
        RefusalCode.ADAPTER_AMBIGUOUS: BAD_REQUEST,
        RefusalCode.DOOR_CLOSED: FORBIDDEN,
        RefusalCode.ROUTE_UNKNOWN: FORBIDDEN,
        RefusalCode.ROUTE_UNLISTED: FORBIDDEN,
        RefusalCode.UPGRADE_REFUSED: FORBIDDEN,
    }
)

_FORBIDDEN = frozenset(
    {
        ErrorReason.PATH_NOT_ALLOWED,
        ErrorReason.SOURCE_NOT_ENABLED,
        ErrorReason.SHA256_MISMATCH,
        ErrorReason.PICKLE_REFUSED,
        ErrorReason.EMBEDDING_REFUSED,
        ErrorReason.EMBEDDING_INVALID,
        ErrorReason.PERMISSION_DENIED,
    }
)
_OURS = frozenset(
    {
        ErrorReason.SOURCE_UNREADABLE,
        ErrorReason.QUEUE_FULL,
        ErrorReason.BYTE_BUDGET_EXHAUSTED,
        ErrorReason.DEADLINE_EXCEEDED,
        ErrorReason.CANCELLED,
        ErrorReason.DRAINING,
        ErrorReason.NOT_READY,
        ErrorReason.AUDIT_FAILED,
        ErrorReason.OUT_OF_MEMORY,
        ErrorReason.DECISION_LOG_UNAVAILABLE,
        ErrorReason.DATABASE_UNAVAILABLE,
        ErrorReason.DISK_FULL,
        ErrorReason.POLICY_INVALID,
        ErrorReason.SIGNING_UNAVAILABLE,
        ErrorReason.LIBRARY_EMPTY,
        ErrorReason.ADAPTER_NOT_STORED,
    }
)
"""The sender did nothing wrong."""

_SOON_S = 5.0
_RETRIED = frozenset({ErrorReason.DEADLINE_EXCEEDED, ErrorReason.CANCELLED})
"""May succeed when asked again although the error does not say when."""


def status_of(error: NoDecisionError) -> int:
    """The HTTP status for a request that no decision exists for."""
    if error.reason in _FORBIDDEN:
        return FORBIDDEN
    if error.reason in _OURS:
        return UNAVAILABLE
    return TOO_LARGE if error.reason is ErrorReason.FILE_TOO_LARGE else BAD_REQUEST


def with_retry(denial: Denial, error: NoDecisionError) -> Denial:
    """The denial, with `retry-after` where asking again may help."""
    seconds = error.retry_after_s
    if seconds is None and error.reason in _RETRIED:
        seconds = _SOON_S
    if seconds is None:
        return denial
    return replace(
        denial, headers=(*denial.headers, ("retry-after", str(max(1, math.ceil(spread(seconds))))))
    )
