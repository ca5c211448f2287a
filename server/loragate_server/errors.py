"""The one exception by which any room of the server says that no decision exists."""

from __future__ import annotations

import random
from collections.abc import Mapping
from enum import StrEnum


class ErrorReason(StrEnum):
    """Mirrors `loragate.v1.ErrorReason`, without its prefix; a test keeps the two equal."""

    NOT_SAFETENSORS = "NOT_SAFETENSORS"
    PICKLE_REFUSED = "PICKLE_REFUSED"
    FILE_TRUNCATED = "FILE_TRUNCATED"
    FILE_EMPTY = "FILE_EMPTY"
    HEADER_INVALID = "HEADER_INVALID"
    HEADER_LIMIT_EXCEEDED = "HEADER_LIMIT_EXCEEDED"
    DUPLICATE_NAME = "DUPLICATE_NAME"
    OFFSETS_INVALID = "OFFSETS_INVALID"
    WEIGHTS_NOT_FINITE = "WEIGHTS_NOT_FINITE"
    DTYPE_UNSUPPORTED = "DTYPE_UNSUPPORTED"
    ADAPTER_METADATA_INVALID = "ADAPTER_METADATA_INVALID"
    FILE_TOO_LARGE = "FILE_TOO_LARGE"
    EMBEDDING_REFUSED = "EMBEDDING_REFUSED"
    EMBEDDING_INVALID = "EMBEDDING_INVALID"
    PATH_NOT_ALLOWED = "PATH_NOT_ALLOWED"
    SOURCE_NOT_FOUND = "SOURCE_NOT_FOUND"
    SOURCE_NOT_ENABLED = "SOURCE_NOT_ENABLED"
    SOURCE_UNREADABLE = "SOURCE_UNREADABLE"
    SHA256_MISMATCH = "SHA256_MISMATCH"
    DECLARED_SIZE_MISMATCH = "DECLARED_SIZE_MISMATCH"
    UPLOAD_PROTOCOL = "UPLOAD_PROTOCOL"
    ADAPTER_NOT_STORED = "ADAPTER_NOT_STORED"
    REQUEST_INVALID = "REQUEST_INVALID"
    STRENGTH_INVALID = "STRENGTH_INVALID"
    BASE_MODEL_UNKNOWN = "BASE_MODEL_UNKNOWN"
    CONCEPT_UNKNOWN = "CONCEPT_UNKNOWN"
    CONCEPT_EXISTS = "CONCEPT_EXISTS"
    CONCEPT_PICTURES_INVALID = "CONCEPT_PICTURES_INVALID"
    LIBRARY_EMPTY = "LIBRARY_EMPTY"
    DECISION_UNKNOWN = "DECISION_UNKNOWN"
    PAGE_TOKEN_INVALID = "PAGE_TOKEN_INVALID"
    QUEUE_FULL = "QUEUE_FULL"
    BYTE_BUDGET_EXHAUSTED = "BYTE_BUDGET_EXHAUSTED"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    CANCELLED = "CANCELLED"
    DRAINING = "DRAINING"
    NOT_READY = "NOT_READY"
    AUDIT_FAILED = "AUDIT_FAILED"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    DECISION_LOG_UNAVAILABLE = "DECISION_LOG_UNAVAILABLE"
    DATABASE_UNAVAILABLE = "DATABASE_UNAVAILABLE"
    DISK_FULL = "DISK_FULL"
    POLICY_INVALID = "POLICY_INVALID"
    SIGNING_UNAVAILABLE = "SIGNING_UNAVAILABLE"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    PERMISSION_DENIED = "PERMISSION_DENIED"


def spread(seconds: float) -> float:
    """When to ask again, up to half as long again by chance.

    Callers that were refused together must not come back together.
    """
    return seconds * random.uniform(1.0, 1.5)


class NoDecisionError(Exception):
    """No decision exists, and why.

    Attributes:
        reason: which of the documented causes it is.
        message: one sentence that names the cause and the offending value.
        remedy: one sentence that says what the caller can do.
        metadata: the machine-readable facts documented for the reason.
        retry_after_s: seconds after which a retry may succeed, or None where it cannot.
        adapter: the number of the adapter that it is about, where one of several is to blame.
    """

    adapter: int | None = None

    def __init__(
        self,
        reason: ErrorReason,
        message: str,
        *,
        remedy: str,
        metadata: Mapping[str, str] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(f"{message} {remedy}")
        self.reason = reason
        self.message = message
        self.remedy = remedy
        self.metadata = dict(metadata or {})
        self.retry_after_s = retry_after_s
