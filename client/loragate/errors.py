"""The errors of the SDK. Each says that no decision exists; none of them ever stands for ALLOW."""

# ruff: noqa: N818 (the names say which error; "AuditError" at their root says that they are errors)

from __future__ import annotations

from collections.abc import Mapping


class AuditError(Exception):
    """No decision exists, and why. Catch this class to catch every answer of the service.

    Attributes:
        operation: what was asked, for example "audit".
        code: name of the gRPC status code, for example "INVALID_ARGUMENT".
        reason: name of a value of `loragate.v1.ErrorReason` without its prefix, for example
            "FILE_TRUNCATED"; empty when the answer did not come from the service.
        message: one sentence that names the cause.
        remedy: one sentence that says what to do; may be empty.
        metadata: the facts documented for the reason.
        violations: (field, description) of each field of the request that is wrong.
        retry_after_s: seconds after which a retry may succeed, where the service said so.
        decision_id: id in the decision log, where one exists.
    """

    def __init__(
        self,
        message: str,
        *,
        operation: str = "",
        code: str = "",
        reason: str = "",
        remedy: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: tuple[tuple[str, str], ...] = (),
        retry_after_s: float | None = None,
        decision_id: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.operation = operation
        self.code = code
        self.reason = reason
        self.remedy = remedy
        self.metadata = dict(metadata or {})
        self.violations = violations
        self.retry_after_s = retry_after_s
        self.decision_id = decision_id

    @property
    def is_retryable(self) -> bool:
        """Whether the same request may succeed later."""
        return self.retry_after_s is not None

    def __str__(self) -> str:
        head = " ".join(part for part in (f"[{self.operation}]", self.code, self.reason) if part)
        parts = [f"{head}: {self.message}"]
        for field, description in self.violations:
            parts.append(
                f"(field {field})" if description == self.message else f"{field}: {description}"
            )
        if self.remedy and self.remedy not in self.message:
            parts.append(self.remedy)
        if self.decision_id:
            parts.append(f"(decision {self.decision_id})")
        return " ".join(parts)


class Unavailable(AuditError):
    """The service cannot be reached, is starting, stopping, or cannot record decisions."""

    @property
    def is_retryable(self) -> bool:
        """Always: nothing is wrong with the request."""
        return True


class Exhausted(AuditError):
    """The service has no room for the request now; `retry_after_s` says when to come back."""

    @property
    def is_retryable(self) -> bool:
        """Always: nothing is wrong with the request."""
        return True


class DeadlineExceeded(AuditError):
    """The time given to the call passed before the audit ended."""

    @property
    def is_retryable(self) -> bool:
        """Always, with a longer timeout."""
        return True


class Cancelled(AuditError):
    """The call was cancelled before the audit ended."""


class Internal(AuditError):
    """The service failed by its own fault, or gave an answer that cannot be trusted."""


class InvalidAdapter(AuditError):
    """The file was refused: it is not a sound safetensors adapter, or not the expected one."""


class InvalidRequest(AuditError):
    """A field of the request, or the place it names, is wrong or not served."""


class NotFound(InvalidRequest):
    """What the request names does not exist: a file, a base model, a concept, a decision."""


class PermissionDenied(AuditError):
    """The caller may not do this."""


class Unauthenticated(PermissionDenied):
    """The caller did not prove who it is."""


ADAPTER_NOT_STORED = "ADAPTER_NOT_STORED"
"""The reason by which the service asks for the bytes of an adapter named by its digest."""

# A reason decides before the status code does, because only these classes lead to a verdict by
# `on_unavailable`: Unavailable, Exhausted, DeadlineExceeded. No reason that a crafted file or
# reference can provoke at will may be among them, or "allow" would let that file in.
_CLASSES: dict[type[AuditError], tuple[str, ...]] = {
    InvalidAdapter: (
        "NOT_SAFETENSORS",
        "PICKLE_REFUSED",
        "FILE_TRUNCATED",
        "FILE_EMPTY",
        "HEADER_INVALID",
        "HEADER_LIMIT_EXCEEDED",
        "DUPLICATE_NAME",
        "OFFSETS_INVALID",
        "WEIGHTS_NOT_FINITE",
        "DTYPE_UNSUPPORTED",
        "ADAPTER_METADATA_INVALID",
        "FILE_TOO_LARGE",
        "EMBEDDING_REFUSED",
        "EMBEDDING_INVALID",
        "SHA256_MISMATCH",
        "DECLARED_SIZE_MISMATCH",
    ),
    InvalidRequest: (
        "PATH_NOT_ALLOWED",
        "SOURCE_NOT_ENABLED",
        "SOURCE_UNREADABLE",
        "UPLOAD_PROTOCOL",
        "REQUEST_INVALID",
        "STRENGTH_INVALID",
        "CONCEPT_EXISTS",
        "CONCEPT_PICTURES_INVALID",
        "PAGE_TOKEN_INVALID",
    ),
    NotFound: (
        "SOURCE_NOT_FOUND",
        ADAPTER_NOT_STORED,
        "BASE_MODEL_UNKNOWN",
        "CONCEPT_UNKNOWN",
        "DECISION_UNKNOWN",
    ),
    Exhausted: ("QUEUE_FULL", "BYTE_BUDGET_EXHAUSTED", "OUT_OF_MEMORY"),
    DeadlineExceeded: ("DEADLINE_EXCEEDED",),
    Cancelled: ("CANCELLED",),
    Unavailable: (
        "DRAINING",
        "NOT_READY",
        "DECISION_LOG_UNAVAILABLE",
        "DATABASE_UNAVAILABLE",
        "DISK_FULL",
        "SIGNING_UNAVAILABLE",
    ),
    Internal: ("AUDIT_FAILED", "LIBRARY_EMPTY", "POLICY_INVALID"),
    Unauthenticated: ("UNAUTHENTICATED",),
    PermissionDenied: ("PERMISSION_DENIED",),
}

CLASS_OF_REASON: Mapping[str, type[AuditError]] = {
    reason: error for error, reasons in _CLASSES.items() for reason in reasons
}
"""Class of the error for each documented reason."""

CLASS_OF_CODE: Mapping[str, type[AuditError]] = {
    # Without a reason it comes from a server that was closing when the call arrived. Whoever
    # cancels a call of the SDK does not see its status.
    "CANCELLED": Unavailable,
    "INVALID_ARGUMENT": InvalidRequest,
    "FAILED_PRECONDITION": InvalidRequest,
    "OUT_OF_RANGE": InvalidRequest,
    "ALREADY_EXISTS": InvalidRequest,
    "NOT_FOUND": NotFound,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "PERMISSION_DENIED": PermissionDenied,
    "UNAUTHENTICATED": Unauthenticated,
    "RESOURCE_EXHAUSTED": Exhausted,
    "UNAVAILABLE": Unavailable,
}
"""Class of the error for a status without a known reason; all other codes are `Internal`."""


def class_for(code: str, reason: str) -> type[AuditError]:
    """Class of the error for a status code and a reason, either of which may be unknown."""
    return CLASS_OF_REASON.get(reason) or CLASS_OF_CODE.get(code, Internal)
