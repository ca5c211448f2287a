"""Turns a failed call into an error of the SDK."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from loragate._diagnosis import credentials_remedy, diagnose
from loragate.config import ClientConfig
from loragate.errors import AuditError, Internal, class_for

DOMAIN = "loragate.dev"
DETAILS_KEY = "grpc-status-details-bin"
GRPC_MESSAGE = "grpc_message"
"""Key of the metadata of an error under which gRPC's own words stand, where there are others."""


def error_from(
    failure: grpc.RpcError, operation: str, config: ClientConfig | None = None
) -> AuditError:
    """Reads the status, ErrorInfo, BadRequest and RetryInfo of a failed call.

    Details that cannot be read may have named any reason, so they make it an `Internal` error,
    which leaves no choice. What did not come from the service says what is wrong with the way to
    it; that changes the words of an error, and never its class.

    Args:
        failure: what gRPC raised.
        operation: what the user called.
        config: of the client that asked, whose settings the messages then name.
    """
    status = _code_name(failure)
    try:
        found = _Details.of(failure)
    except (DecodeError, ValueError, ArithmeticError) as error:
        return Internal(
            f"{_message(failure)} The details of this error cannot be read: {error}.",
            operation=operation,
            code=status,
        )
    metadata = dict(found.info.metadata)
    message, remedy = _message(failure), metadata.pop("remedy", "")
    if config is not None and found.info.reason == "UNAUTHENTICATED":
        # The server knows metadata of the call, and not what sets it here.
        remedy = f"{remedy} {credentials_remedy(config)}".strip()
    diagnosis = diagnose(status, message, config) if config and not found.info.reason else None
    if diagnosis is not None:
        metadata[GRPC_MESSAGE] = message
        message, remedy = diagnosis.cause, diagnosis.remedy
    return class_for(status, found.info.reason)(
        message,
        operation=operation,
        code=status,
        reason=found.info.reason,
        remedy=remedy,
        decision_id=metadata.get("decision_id", ""),
        metadata=metadata,
        violations=found.violations,
        retry_after_s=found.retry_after_s,
    )


@dataclass(frozen=True)
class _Details:
    """What stands beside a status code."""

    info: Any
    violations: tuple[tuple[str, str], ...]
    retry_after_s: float | None

    @classmethod
    def of(cls, failure: grpc.RpcError) -> _Details:
        """Reads them.

        Raises:
            DecodeError, ValueError, ArithmeticError: they cannot be read.
        """
        info = error_details_pb2.ErrorInfo()
        violations: list[tuple[str, str]] = []
        retry_after_s: float | None = None
        for detail in _details(failure):
            if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
                found = error_details_pb2.ErrorInfo()
                detail.Unpack(found)
                # A proxy between may add an ErrorInfo of its own; its reasons are not ours.
                if found.domain == DOMAIN:
                    info = found
            elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
                bad = error_details_pb2.BadRequest()
                detail.Unpack(bad)
                violations += [(v.field, v.description) for v in bad.field_violations]
            elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
                retry = error_details_pb2.RetryInfo()
                detail.Unpack(retry)
                retry_after_s = retry.retry_delay.ToTimedelta().total_seconds()
        return cls(info, tuple(violations), retry_after_s)


def _code_name(failure: grpc.RpcError) -> str:
    code = failure.code() if hasattr(failure, "code") else None
    return code.name if isinstance(code, grpc.StatusCode) else "UNKNOWN"


def _message(failure: grpc.RpcError) -> str:
    text = failure.details() if hasattr(failure, "details") else str(failure)
    return str(text or "The service gave no explanation.")


def _details(failure: grpc.RpcError) -> list[Any]:
    """The details of the status; none where there are none.

    Raises:
        DecodeError: they cannot be read.
    """
    trailing = failure.trailing_metadata() if hasattr(failure, "trailing_metadata") else None
    for key, value in trailing or ():
        if key == DETAILS_KEY:
            return list(status_pb2.Status.FromString(value).details)
    return []
