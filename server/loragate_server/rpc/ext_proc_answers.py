"""What Envoy is told: the responses of external processing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from loragate_server.checkpoint.outcome import CheckOutcome
from loragate_server.rpc.envoy import ext_proc_pb2 as wire
from loragate_server.rpc.envoy_messages import OUR_HEADERS, denial_headers, told_headers

Response: TypeAlias = wire.ProcessingResponse

PASSED_ON = {
    "response_headers": Response(response_headers=wire.HeadersResponse()),
    "response_body": Response(response_body=wire.BodyResponse()),
    "request_body": Response(request_body=wire.BodyResponse()),
    "request_trailers": Response(request_trailers=wire.TrailersResponse()),
    "response_trailers": Response(response_trailers=wire.TrailersResponse()),
}
"""What follows an allowed request is no concern of ours."""


def go_on(outcome: CheckOutcome | None) -> Response:
    """To the headers: go on. What a client sent in our headers' place is removed."""
    response = Response(
        request_headers=wire.HeadersResponse(
            response=wire.CommonResponse(header_mutation=_mutation(outcome))
        )
    )
    return _with_metadata(response, outcome)


def unread(outcome: CheckOutcome) -> Response:
    """To the headers: go on, and let the body pass without showing it, where the filter can."""
    response = go_on(outcome)
    response.mode_override.request_header_mode = wire.ProcessingMode.SEND
    response.mode_override.response_header_mode = wire.ProcessingMode.SKIP
    response.mode_override.request_body_mode = wire.NONE
    return response


def whole_body(outcome: CheckOutcome, headers: Mapping[str, str]) -> Response:
    """To the body: go on, with the one that names the audited copies."""
    common = wire.CommonResponse(header_mutation=_mutation(outcome))
    if outcome.body is not None:
        common.body_mutation.body = outcome.body
        if "content-length" in headers:
            length = _overwriting({"content-length": str(len(outcome.body))})
            common.header_mutation.set_headers.extend(length)
    response = Response(request_body=wire.BodyResponse(response=common))
    return _with_metadata(response, outcome)


def piece(body: bytes, *, end: bool = False) -> Response:
    """To the body of a stream: a piece that is sent on."""
    sent = wire.StreamedBodyResponse(body=body, end_of_stream=end)
    mutation = wire.BodyMutation(streamed_response=sent)
    return Response(
        request_body=wire.BodyResponse(response=wire.CommonResponse(body_mutation=mutation))
    )


def immediate(outcome: CheckOutcome) -> Response:
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
