"""Between Envoy's messages and the checkpoint's nouns. Nothing is decided here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

import grpc

from loragate_server.checkpoint.outcome import CheckOutcome, CheckSource
from loragate_server.intercept.request import HttpRequest
from loragate_server.intercept.upgrades import PROTOCOL
from loragate_server.rpc.access import IDENTITY
from loragate_server.rpc.metadata import metadata_value

EXTRACTOR_KEY = "x-loragate-extractor"
"""Key of gRPC metadata, and of ext_authz context extensions, that names the extractor."""

DECISION_HEADER = "x-loragate-decision-id"
VERDICT_HEADER = "x-loragate-verdict"
OUR_HEADERS = (DECISION_HEADER, VERDICT_HEADER)
"""Set by us alone: what a client sent under these names is removed."""

PARTIAL_BODY = "x-envoy-auth-partial-body"

ANSWER_TIME_S = 0.1
"""A check ends so long before its deadline, so that Envoy gets a denial and not an error."""

_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})


class _Header(Protocol):
    key: str
    value: str
    raw_value: bytes


def joined_headers(headers: Iterable[_Header]) -> dict[str, str]:
    """A header map as names in lower case; values of repeated headers joined by ", "."""
    found: dict[str, str] = {}
    for one in headers:
        name = one.key.lower()
        value = one.raw_value.decode("latin-1") if one.raw_value else one.value
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def http_request(
    method: str,
    target: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    size_bytes: int = 0,
) -> HttpRequest:
    """The request as extractors see it.

    Args:
        method: as sent.
        target: path and query as they stand in the request line.
        headers: names in lower case.
        body: what the proxy has sent of it.
        size_bytes: size of the whole body, where the proxy says so.
    """
    path, _, query = target.partition("?")
    return HttpRequest(
        method=method.upper(),
        path=path,
        query=query,
        headers={
            name: value
            for name, value in headers.items()
            if name == PROTOCOL or not name.startswith(":")
        },
        body=body,
        body_complete=_complete(method.upper(), headers, len(body), size_bytes),
    )


def _complete(method: str, headers: Mapping[str, str], received: int, size_bytes: int) -> bool:
    """Whether the body is all there. In doubt it is not."""
    if PARTIAL_BODY in headers and headers[PARTIAL_BODY].strip().lower() != "false":
        return False
    declared = headers.get("content-length")
    if declared is not None:
        return declared.strip() == str(received) and size_bytes <= received
    # A proxy that shows no bodies looks just like a request of unknown length without a body.
    return size_bytes <= received and not (method in _WITH_BODY and received == 0)


def check_source(
    context: grpc.aio.ServicerContext, door: str, extractor: str = "", *, rewrites: bool = False
) -> CheckSource:
    """Who asks, and by which extractor: the one given, else the one in the call's metadata."""
    return CheckSource(
        door=door,
        extractor=extractor or metadata_value(context, EXTRACTOR_KEY),
        identity=IDENTITY.get(),
        rewrites=rewrites,
    )


def told_headers(outcome: CheckOutcome) -> dict[str, str]:
    """The headers that tell image server and client of a decision; none without one."""
    if not outcome.decision_id:
        return {}
    return {DECISION_HEADER: outcome.decision_id, VERDICT_HEADER: outcome.verdict}


def denial_headers(outcome: CheckOutcome) -> dict[str, str]:
    """The headers of a denial."""
    if outcome.denial is None:
        return {}
    headers = {
        "content-type": outcome.denial.content_type,
        **{name.lower(): value for name, value in outcome.denial.headers},
        **told_headers(outcome),
    }
    return {name: value for name, value in headers.items() if value}
