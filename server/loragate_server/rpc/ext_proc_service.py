"""Envoy's external processing, version 3: the body is made to name what was audited."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import grpc

from loragate_server.checkpoint.checkpoint import Checkpoint
from loragate_server.checkpoint.outcome import CheckOutcome
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.intercept.extraction import RefusalCode, RefusedRequestError
from loragate_server.intercept.request import HttpRequest
from loragate_server.rpc.access import EXTERNAL_PROCESSOR
from loragate_server.rpc.envoy import ext_proc_pb2 as wire
from loragate_server.rpc.envoy_messages import (
    ANSWER_TIME_S,
    check_source,
    http_request,
    joined_headers,
)
from loragate_server.rpc.ext_proc_answers import (
    PASSED_ON,
    Response,
    go_on,
    immediate,
    unread,
    whole_body,
)
from loragate_server.rpc.ext_proc_streams import Request, carried
from loragate_server.rpc.leash import call_leash

_NO_STREAM = "The filter sends the body in pieces, and this is no stream whose messages are read."


class ExtProcService:
    """One stream per request: its headers, its body, and what Envoy wants to tell after them."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._streams = 0

    async def Process(  # noqa: N802
        self, request_iterator: AsyncIterator[Request], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[Response]:
        """Lets a request pass, with its body rewritten, or answers it at once."""
        headers: dict[str, str] | None = None
        outcome: CheckOutcome | None = None
        passed = False
        async for message in request_iterator:
            if headers is None and _streams(message):
                self._streams += 1
                try:
                    async for answer in self._carried(message, request_iterator, context):
                        yield answer
                finally:
                    self._streams -= 1
                return
            kind = message.WhichOneof("request") or "nothing"
            if outcome is not None:
                fault = _late(kind, passed)
            else:
                fault = _fault(message, kind, headers is not None)
            if fault:
                source = check_source(context, "ext_proc")
                yield immediate(self._checkpoint.refuse(source, _refusal(fault)))
                return
            if outcome is not None:
                yield PASSED_ON[kind]
                continue
            if headers is None:
                headers = joined_headers(message.request_headers.headers.headers)
                if not message.request_headers.end_of_stream:
                    # The body of an upgrade or of a stream has no end that could be waited for.
                    source = check_source(context, "ext_proc")
                    outcome = self._checkpoint.check_head(_shown(headers, b""), source)
                    if outcome is not None and not outcome.allowed:
                        yield immediate(outcome)
                        return
                    passed = outcome is not None
                    yield go_on(outcome) if outcome is None else unread(outcome)
                    continue
            outcome = await self._check(headers, message.request_body.body, context)
            if not outcome.allowed:
                yield immediate(outcome)
                return
            yield whole_body(outcome, headers) if kind == "request_body" else go_on(outcome)

    def _carried(
        self,
        first: Request,
        later: AsyncIterator[Request],
        context: grpc.aio.ServicerContext,
    ) -> AsyncIterator[Response]:
        """The answers to a stream of gRPC, each message of which is checked alone."""
        source = check_source(context, "ext_proc", rewrites=True)
        opening = _shown(joined_headers(first.request_headers.headers.headers), b"")
        if not self._checkpoint.opens_stream(opening, source):
            return _refused(self._checkpoint.refuse(source, _refusal(_NO_STREAM)))
        if self._streams > self._checkpoint.settings.max_streams:
            return _refused(self._checkpoint.turn_away(source, _no_room()))
        return carried(self._checkpoint, opening, source, later, context)

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


def _no_room() -> NoDecisionError:
    return NoDecisionError(
        ErrorReason.QUEUE_FULL,
        "As many streams are open as may be.",
        remedy="Close some, or raise intercept.max_streams.",
        retry_after_s=1.0,
    )


async def _refused(outcome: CheckOutcome) -> AsyncIterator[Response]:
    yield immediate(outcome)


def _streams(message: Request) -> bool:
    """Whether the filter sends the body in pieces, and takes it back in others."""
    mode = message.protocol_config.request_body_mode
    return message.WhichOneof("request") == "request_headers" and mode == wire.FULL_DUPLEX_STREAMED


def _late(kind: str, passed: bool) -> str:
    """What is wrong with a message after the answer; a body comes only where none was read."""
    passes = kind in PASSED_ON and (passed or kind != "request_body")
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
