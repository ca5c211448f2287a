"""`NoDecisionError` as a gRPC status with google.rpc details."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NoReturn

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from loragate_server.errors import ErrorReason, NoDecisionError, spread
from loragate_server.logs.lines import REQUEST_ID

DOMAIN = "loragate.dev"
DETAILS_KEY = "grpc-status-details-bin"
REQUEST_ID_KEY = "x-request-id"

# A status travels in HTTP/2 trailers, for which peers accept 8 KiB by default.
_MESSAGE_LIMIT = 700
_VALUE_LIMIT = 300
_METADATA_LIMIT = 8

_Code = grpc.StatusCode

CODES: Mapping[ErrorReason, grpc.StatusCode] = MappingProxyType(
    {
        ErrorReason.NOT_SAFETENSORS: _Code.INVALID_ARGUMENT,
        ErrorReason.PICKLE_REFUSED: _Code.INVALID_ARGUMENT,
        ErrorReason.FILE_TRUNCATED: _Code.INVALID_ARGUMENT,
        ErrorReason.FILE_EMPTY: _Code.INVALID_ARGUMENT,
        ErrorReason.HEADER_INVALID: _Code.INVALID_ARGUMENT,
        ErrorReason.HEADER_LIMIT_EXCEEDED: _Code.INVALID_ARGUMENT,
        ErrorReason.DUPLICATE_NAME: _Code.INVALID_ARGUMENT,
        ErrorReason.OFFSETS_INVALID: _Code.INVALID_ARGUMENT,
        ErrorReason.WEIGHTS_NOT_FINITE: _Code.INVALID_ARGUMENT,
        ErrorReason.DTYPE_UNSUPPORTED: _Code.INVALID_ARGUMENT,
        ErrorReason.ADAPTER_METADATA_INVALID: _Code.INVALID_ARGUMENT,
        ErrorReason.FILE_TOO_LARGE: _Code.INVALID_ARGUMENT,
        ErrorReason.EMBEDDING_REFUSED: _Code.INVALID_ARGUMENT,
        ErrorReason.EMBEDDING_INVALID: _Code.INVALID_ARGUMENT,
        ErrorReason.PATH_NOT_ALLOWED: _Code.PERMISSION_DENIED,
        ErrorReason.SOURCE_NOT_FOUND: _Code.NOT_FOUND,
        ErrorReason.SOURCE_NOT_ENABLED: _Code.FAILED_PRECONDITION,
        ErrorReason.SOURCE_UNREADABLE: _Code.UNAVAILABLE,
        ErrorReason.SHA256_MISMATCH: _Code.FAILED_PRECONDITION,
        ErrorReason.DECLARED_SIZE_MISMATCH: _Code.INVALID_ARGUMENT,
        ErrorReason.UPLOAD_PROTOCOL: _Code.INVALID_ARGUMENT,
        ErrorReason.ADAPTER_NOT_STORED: _Code.NOT_FOUND,
        ErrorReason.REQUEST_INVALID: _Code.INVALID_ARGUMENT,
        ErrorReason.STRENGTH_INVALID: _Code.INVALID_ARGUMENT,
        ErrorReason.BASE_MODEL_UNKNOWN: _Code.NOT_FOUND,
        ErrorReason.CONCEPT_UNKNOWN: _Code.NOT_FOUND,
        ErrorReason.CONCEPT_EXISTS: _Code.ALREADY_EXISTS,
        ErrorReason.CONCEPT_PICTURES_INVALID: _Code.INVALID_ARGUMENT,
        ErrorReason.LIBRARY_EMPTY: _Code.FAILED_PRECONDITION,
        ErrorReason.DECISION_UNKNOWN: _Code.NOT_FOUND,
        ErrorReason.PAGE_TOKEN_INVALID: _Code.INVALID_ARGUMENT,
        ErrorReason.QUEUE_FULL: _Code.RESOURCE_EXHAUSTED,
        ErrorReason.BYTE_BUDGET_EXHAUSTED: _Code.RESOURCE_EXHAUSTED,
        ErrorReason.DEADLINE_EXCEEDED: _Code.DEADLINE_EXCEEDED,
        ErrorReason.CANCELLED: _Code.CANCELLED,
        ErrorReason.DRAINING: _Code.UNAVAILABLE,
        ErrorReason.NOT_READY: _Code.UNAVAILABLE,
        ErrorReason.AUDIT_FAILED: _Code.INTERNAL,
        ErrorReason.OUT_OF_MEMORY: _Code.RESOURCE_EXHAUSTED,
        ErrorReason.DECISION_LOG_UNAVAILABLE: _Code.UNAVAILABLE,
        ErrorReason.DATABASE_UNAVAILABLE: _Code.UNAVAILABLE,
        ErrorReason.DISK_FULL: _Code.RESOURCE_EXHAUSTED,
        ErrorReason.POLICY_INVALID: _Code.FAILED_PRECONDITION,
        ErrorReason.SIGNING_UNAVAILABLE: _Code.UNAVAILABLE,
        ErrorReason.UNAUTHENTICATED: _Code.UNAUTHENTICATED,
        ErrorReason.PERMISSION_DENIED: _Code.PERMISSION_DENIED,
    }
)
"""The status code of every reason."""

_FIELDS: Mapping[ErrorReason, str] = MappingProxyType(
    {
        ErrorReason.PATH_NOT_ALLOWED: "adapters.path",
        ErrorReason.SOURCE_NOT_FOUND: "adapters.source",
        ErrorReason.SOURCE_NOT_ENABLED: "adapters.uri",
        ErrorReason.SHA256_MISMATCH: "adapters.expected_sha256",
        ErrorReason.ADAPTER_NOT_STORED: "adapters.stored_sha256",
        ErrorReason.DECLARED_SIZE_MISMATCH: "header.declared_size_bytes",
        ErrorReason.BASE_MODEL_UNKNOWN: "base_model",
        ErrorReason.CONCEPT_UNKNOWN: "concept_ids",
        ErrorReason.CONCEPT_EXISTS: "concept.concept_id",
        ErrorReason.CONCEPT_PICTURES_INVALID: "picture",
        ErrorReason.DECISION_UNKNOWN: "decision_id",
        ErrorReason.PAGE_TOKEN_INVALID: "page_token",
    }
)
"""The field at fault where the reason alone tells it."""

_FIELD_IN_METADATA = frozenset({ErrorReason.REQUEST_INVALID, ErrorReason.STRENGTH_INVALID})
"""Reasons whose metadata entry "field" names a field of the request."""


def to_status(error: NoDecisionError) -> status_pb2.Status:
    """The error as google.rpc.Status: ErrorInfo always, BadRequest and RetryInfo where they apply.

    The remedy is in ErrorInfo.metadata["remedy"].
    """
    metadata = dict(list(error.metadata.items())[:_METADATA_LIMIT])
    metadata["remedy"] = error.remedy
    status = status_pb2.Status(
        code=CODES[error.reason].value[0], message=_cut(error.message, _MESSAGE_LIMIT)
    )
    _attach(
        status,
        error_details_pb2.ErrorInfo(
            reason=error.reason.value,
            domain=DOMAIN,
            metadata={name[:64]: _cut(value, _VALUE_LIMIT) for name, value in metadata.items()},
        ),
    )
    field = _field(error)
    if field:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=_cut(field, _VALUE_LIMIT), description=_cut(error.message, _VALUE_LIMIT)
        )
        _attach(status, error_details_pb2.BadRequest(field_violations=[violation]))
    if error.retry_after_s is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(round(spread(max(0.0, error.retry_after_s)) * 1e9))
        _attach(status, retry)
    return status


async def abort(context: grpc.aio.ServicerContext, error: NoDecisionError) -> NoReturn:
    """Ends the call with the error.

    Raises:
        grpc.aio.AbortError: always.
    """
    status = to_status(error)
    await context.abort(
        CODES[error.reason],
        status.message,
        trailing_metadata=(
            (DETAILS_KEY, status.SerializeToString()),
            (REQUEST_ID_KEY, REQUEST_ID.get()),
        ),
    )
    raise AssertionError("abort returned")


def _field(error: NoDecisionError) -> str:
    if error.reason in _FIELD_IN_METADATA:
        return error.metadata.get("field", "")
    return _FIELDS.get(error.reason, "")


def _attach(status: status_pb2.Status, detail: Message) -> None:
    packed = Any()
    packed.Pack(detail)
    status.details.append(packed)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
