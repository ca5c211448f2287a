"""Envoy's external authorization, version 3: `envoy.service.auth.v3.Authorization`."""

from __future__ import annotations

from collections.abc import Mapping

import grpc

from loragate_server.checkpoint.checkpoint import Checkpoint
from loragate_server.checkpoint.outcome import CheckOutcome
from loragate_server.intercept.request import HttpRequest
from loragate_server.rpc.access import AUTHORIZATION
from loragate_server.rpc.envoy import ext_authz_pb2 as wire
from loragate_server.rpc.envoy_messages import (
    ANSWER_TIME_S,
    EXTRACTOR_KEY,
    OUR_HEADERS,
    check_source,
    denial_headers,
    http_request,
    joined_headers,
    told_headers,
)
from loragate_server.rpc.leash import call_leash


class AuthzService:
    """Answers every check with a response; an error would leave the choice to Envoy's settings."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint

    async def Check(  # noqa: N802
        self, request: wire.CheckRequest, context: grpc.aio.ServicerContext
    ) -> wire.CheckResponse:
        """Whether a request may pass."""
        attributes = request.attributes
        source = check_source(
            context, "ext_authz", attributes.context_extensions.get(EXTRACTOR_KEY, "")
        )
        with call_leash(context, spare_s=ANSWER_TIME_S) as leash:
            outcome = await self._checkpoint.check(_shown(attributes.request.http), source, leash)
        return check_response(outcome)


def authz_handler(service: AuthzService) -> grpc.GenericRpcHandler:
    """The service as a server takes it."""
    method = grpc.unary_unary_rpc_method_handler(
        service.Check,
        request_deserializer=wire.CheckRequest.FromString,
        response_serializer=wire.CheckResponse.SerializeToString,
    )
    return grpc.method_handlers_generic_handler(AUTHORIZATION, {"Check": method})


def _shown(http: wire.AttributeContext.HttpRequest) -> HttpRequest:
    headers = {name.lower(): value for name, value in http.headers.items()}
    # Envoy fills the one or the other.
    headers |= joined_headers(http.header_map.headers)
    target = http.path if not http.query or "?" in http.path else f"{http.path}?{http.query}"
    body = http.raw_body or http.body.encode()
    return http_request(http.method, target, headers, body, size_bytes=http.size)


def check_response(outcome: CheckOutcome) -> wire.CheckResponse:
    """The outcome in Envoy's words."""
    response = wire.CheckResponse()
    response.dynamic_metadata.update(dict(outcome.facts))
    if outcome.audited:
        copies = [outcome.audited[number] for number in sorted(outcome.audited)]
        response.dynamic_metadata.update({"audited": copies})
    if outcome.denial is None:
        told = told_headers(outcome)
        response.status.code = grpc.StatusCode.OK.value[0]
        response.ok_response.headers.extend(_overwriting(told))
        response.ok_response.headers_to_remove.extend(
            name for name in OUR_HEADERS if name not in told
        )
        return response
    response.status.code = grpc.StatusCode.PERMISSION_DENIED.value[0]
    response.status.message = outcome.result.value
    denied = response.denied_response
    denied.status.code = outcome.denial.status
    denied.headers.extend(_overwriting(denial_headers(outcome)))
    # A string on this wire; image servers' errors are text, and the answer must not fail.
    denied.body = outcome.denial.body.decode("utf-8", "replace")
    return response


def _overwriting(headers: Mapping[str, str]) -> list[wire.HeaderValueOption]:
    return [
        wire.HeaderValueOption(
            header=wire.HeaderValue(key=name, value=value),
            append_action=wire.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
        )
        for name, value in headers.items()
    ]
