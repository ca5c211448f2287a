"""Errors as `application/problem+json` (RFC 9457), from the very status that gRPC would send."""

from __future__ import annotations

import math
from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

import grpc
from aiohttp import web
from google.rpc import error_details_pb2, status_pb2

from loragate_server.errors import NoDecisionError
from loragate_server.rpc.errors import DOMAIN

TYPE = "application/problem+json"
GONE = 499
"""The client left: nobody reads it."""

_Code = grpc.StatusCode

STATUSES: Mapping[grpc.StatusCode, int] = MappingProxyType(
    {
        _Code.INVALID_ARGUMENT: 400,
        _Code.FAILED_PRECONDITION: 400,
        _Code.OUT_OF_RANGE: 400,
        _Code.UNAUTHENTICATED: 401,
        _Code.PERMISSION_DENIED: 403,
        _Code.NOT_FOUND: 404,
        _Code.ALREADY_EXISTS: 409,
        _Code.ABORTED: 409,
        _Code.RESOURCE_EXHAUSTED: 429,
        _Code.CANCELLED: GONE,
        _Code.UNIMPLEMENTED: 501,
        _Code.UNAVAILABLE: 503,
        _Code.DEADLINE_EXCEEDED: 504,
    }
)
"""As google/rpc/code.proto pairs them; 500 for the others."""


class HttpRefusalError(NoDecisionError):
    """What HTTP has a status of its own for, where gRPC has not.

    Attributes:
        http_status: of the answer.
    """

    def __init__(self, http_status: int, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.http_status = http_status


def problem_of(status: status_pb2.Status, http_status: int, request_id: str = "") -> dict[str, Any]:
    """The document for a status of gRPC."""
    found: dict[str, Any] = {
        "type": "about:blank",
        "title": _title(http_status),
        "status": http_status,
        "detail": status.message,
        "code": _name(status.code),
    }
    for detail in status.details:
        _add(found, detail)
    if request_id:
        found["request_id"] = request_id
    return found


def plain_problem(http_status: int, detail: str) -> dict[str, Any]:
    """The document for what never became a call."""
    return {
        "type": "about:blank",
        "title": _title(http_status),
        "status": http_status,
        "detail": detail,
    }


def answer(problem: dict[str, Any], headers: Mapping[str, str] | None = None) -> web.Response:
    """The document as an answer."""
    response = web.json_response(
        problem, status=problem["status"], content_type=TYPE, headers=headers
    )
    if problem["status"] == HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = 'Bearer realm="loragate"'
    if "retry_after_s" in problem:
        response.headers["Retry-After"] = str(math.ceil(problem["retry_after_s"]))
    return response


def _add(found: dict[str, Any], detail: Any) -> None:
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    if detail.Unpack(info):
        metadata = dict(info.metadata)
        found["type"] = f"tag:{DOMAIN},2025:{info.reason}"
        found["title"] = info.reason.replace("_", " ").capitalize()
        found["reason"] = info.reason
        found["remedy"] = metadata.pop("remedy", "")
        found["metadata"] = metadata
    elif detail.Unpack(bad):
        found["field"] = bad.field_violations[0].field
    elif detail.Unpack(retry):
        found["retry_after_s"] = round(retry.retry_delay.ToTimedelta().total_seconds(), 3)


def _name(code: int) -> str:
    return next((str(one.name) for one in _Code if one.value[0] == code), "UNKNOWN")


def _title(http_status: int) -> str:
    try:
        return HTTPStatus(http_status).phrase
    except ValueError:
        return "Error"
