"""Envoy's external processing, version 3: the body is made to name what was audited."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import TypeAlias

import grpc

from loragate_server.checkpoint.checkpoint import Checkpoint
from loragate_server.checkpoint.outcome import CheckOutcome
from loragate_server.intercept.extraction import RefusalCode, RefusedRequestError
from loragate_server.intercept.request import HttpRequest
from loragate_server.rpc.access import EXTERNAL_PROCESSOR
from loragate_server.rpc.envoy import ext_proc_pb2 as wire
from loragate_server.rpc.envoy_messages import (
    ANSWER_TIME_S,
    OUR_HEADERS,
    check_source,
    denial_headers,
    http_request,
    joined_headers,
    told_headers,
)
from loragate_server.rpc.leash import call_leash

Request: TypeAlias = wire.ProcessingRequest
Response: TypeAlias = wire.ProcessingResponse

_PASSED_ON = {
    "response_headers": Response(response_headers=wire.HeadersResponse()),
    "response_body": Response(response_body=wire.BodyResponse()),
    "request_body": Response(request_body=wire.BodyResponse()),
    "request_trailers": Response(request_trailers=wire.TrailersResponse()),
    "response_trailers": Response(response_trailers=wire.TrailersResponse()),
}
"""What follows an allowed request is no concern of ours."""


class ExtProcService:
    """One stream per request: its headers, its body, and what Envoy wants to tell after them."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint

    async def Process(  # noqa: N802
        self, request_iterator: AsyncIterator[Request], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[Response]:
        """Lets a request pass, with its body rewritten, or answers it at once."""
        headers: dict[str, str] | None = None
        outcome: CheckOutcome | None = None
        unread = False
        async for message in request_iterator:
            kind = message.WhichOneof("request") or "nothing"
            if outcome is not None:
                fault = _late(kind, unread)
            else:
                fault = _fault(message, kind, headers is not None)
            if fault:
                source = check_source(context, "ext_proc")
                yield _immediate(self._checkpoint.refuse(source, _refusal(fault)))
                return
            if outcome is not None:
                yield _PASSED_ON[kind]
                continue
            if headers is None:
                headers = joined_headers(message.request_headers.headers.headers)
                if not message.request_headers.end_of_stream:
                    # The body of an upgrade or of a stream has no end that could be waited for.
                    source = check_source(context, "ext_proc")
                    outcome = self._checkpoint.check_head(_shown(headers, b""), source)
                    if outcome is not None and not outcome.allowed:
                        yield _immediate(outcome)
                        return
                    unread = outcome is not None
                    yield _go_on(outcome) if outcome is None else _unread(outcome)
                    continue
            outcome = await self._check(headers, message.request_body.body, context)
            if not outcome.allowed:
                yield _immediate(outcome)
                return
            yield _body(outcome, headers) if kind == "request_body" else _go_on(outcome)

    async def _check(
        self, headers: Mapping[str, str], body: bytes, context: grpc.aio.ServicerContext
    ) -> CheckOutcome:
        source = check_source(context, "ext_proc", rewrites=True)
        with call_leash(context, spare_s=ANSWER_TIME_S) as leash:
            return await self._checkpoint.check(_shown(headers, body), source, leash)


def ext_proc_handler(service: ExtProcService) -> grpc.GenericRpcHandler:
    """The service as a server takes it."""
    method = grpc.stream_stream_rpc_method_handler(
        service.Process,
        request_deserializer=Request.FromString,
        response_serializer=Response.SerializeToString,
    )
    return grpc.method_handlers_generic_handler(EXTERNAL_PROCESSOR, {"Process": method})


def _shown(headers: Mapping[str, str], body: bytes) -> HttpRequest:
    shown = http_request(headers.get(":method", ""), headers.get(":path", ""), headers, body)
    # Envoy itself says here where the body ends, also for a request without a body.
    known = headers.get("content-length", str(len(body))).strip() == str(len(body))
    return HttpRequest(
        shown.method, shown.path, shown.query, shown.headers, body, body_complete=known
    )


def _late(kind: str, unread: bool) -> str:
    """What is wrong with a message after the answer; a body comes only where none was read."""
    passes = kind in _PASSED_ON and (unread or kind != "request_body")
    return "" if passes else f"After the answer came {kind}."


def _fault(message: Request, kind: str, headers_came: bool) -> str:
    """What is wrong with a message before the answer; empty for nothing."""
    if not headers_came:
        if kind != "request_headers":
            return f"The stream begins with {kind}, not with the request's headers."
        return _fault_of_mode(message)
    if kind != "request_body":
        return f"In the body's place came {kind}."
    return "" if message.request_body.end_of_stream else "The body came in parts."


def _fault_of_mode(message: Request) -> str:
    """What is wrong with the first message.

    A filter that shows no body lets the request go as soon as its headers are answered.
    """
    if message.request_headers.end_of_stream:
        return ""
    if not message.HasField("protocol_config"):
        return "The filter does not say in which mode it sends bodies."
    if message.protocol_config.request_body_mode != wire.BUFFERED:
        return "The filter does not send the body as a whole."
    return ""


def _refusal(fault: str) -> RefusedRequestError:
    return RefusedRequestError(
        RefusalCode.BODY_INCOMPLETE,
        fault,
        remedy="Set request_header_mode SEND and request_body_mode BUFFERED in a recent Envoy.",
    )


def _go_on(outcome: CheckOutcome | None) -> Response:
    """To the headers: go on. What a client sent in our headers' place is removed."""
    response = Response(
        request_headers=wire.HeadersResponse(
            response=wire.CommonResponse(header_mutation=_mutation(outcome))
        )
    )
    return _with_metadata(response, outcome)


def _unread(outcome: CheckOutcome) -> Response:
    """To the headers: go on, and let the body pass without showing it, where the filter can."""
    response = _go_on(outcome)
    response.mode_override.request_header_mode = wire.ProcessingMode.SEND
    response.mode_override.response_header_mode = wire.ProcessingMode.SKIP
    response.mode_override.request_body_mode = wire.NONE
    return response


def _body(outcome: CheckOutcome, headers: Mapping[str, str]) -> Response:
    """To the body: go on, with the one that names the audited copies."""
    common = wire.CommonResponse(header_mutation=_mutation(outcome))
    if outcome.body is not None:
        common.body_mutation.body = outcome.body
        if "content-length" in headers:
            length = _overwriting({"content-length": str(len(outcome.body))})
            common.header_mutation.set_headers.extend(length)
    response = Response(request_body=wire.BodyResponse(response=common))
    return _with_metadata(response, outcome)


def _immediate(outcome: CheckOutcome) -> Response:
    """An answer in the place of the image server's."""
    denial = outcome.denial
    if denial is None:
        raise ValueError("a request that passes has no answer of ours")
    response = Response(
        immediate_response=wire.ImmediateResponse(
            status=wire.HttpStatus(code=denial.status),
            headers=wire.HeaderMutation(set_headers=_overwriting(denial_headers(outcome))),
            body=denial.body,
            details=f"loragate_{outcome.result.value}",
        )
    )
    return _with_metadata(response, outcome)


def _with_metadata(response: Response, outcome: CheckOutcome | None) -> Response:
    if outcome is not None:
        response.dynamic_metadata.update({"loragate": dict(outcome.facts)})
    return response


def _mutation(outcome: CheckOutcome | None) -> wire.HeaderMutation:
    told = {} if outcome is None else told_headers(outcome)
    return wire.HeaderMutation(
        set_headers=_overwriting(told),
        remove_headers=[name for name in OUR_HEADERS if name not in told],
    )


def _overwriting(headers: Mapping[str, str]) -> list[wire.HeaderValueOption]:
    return [
        wire.HeaderValueOption(
            header=wire.HeaderValue(key=name, raw_value=value.encode()),
            append_action=wire.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
        )
        for name, value in headers.items()
    ]
