"""How a relayed WebSocket opens: what is asked of the image server, and what a refusal says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.datastructures import Headers
from websockets.exceptions import InvalidStatus, InvalidURI, WebSocketException
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from loragate_server.config.intercept import RelayEntry, split_upstream
from loragate_server.intercept.extraction import Denial
from loragate_server.intercept.request import HttpRequest

AUTHORIZATION = "x-loragate-authorization"
"""Where a proxy shows its token; Authorization itself is the client's, for the image server."""

_OF_CONNECTION = frozenset(
    {
        "connection",
        "content-length",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_OURS = ("sec-websocket-", "x-loragate-", "proxy-")
_HOST = re.compile(r"[A-Za-z0-9._-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


class NotOpenedError(Exception):
    """A connection does not open; `response` says why."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        body = json.dumps({"error": {"code": code, "message": message}}).encode()
        self.code = code
        self.response = response_of(Denial(status, body))


def response_of(denial: Denial) -> Response:
    """A denial as the answer to an opening."""
    headers = Headers()
    headers["Content-Type"] = denial.content_type
    headers["Content-Length"] = str(len(denial.body))
    headers["Connection"] = "close"
    headers["Cache-Control"] = "no-store"
    for name, value in denial.headers:
        if value:
            headers[name] = value
    known = {one.value: one.phrase for one in HTTPStatus}
    return Response(denial.status, known.get(denial.status, "Refused"), headers, denial.body)


def shown(request: Request) -> HttpRequest:
    """The opening as an extractor looks at it."""
    headers: dict[str, str] = {}
    for name, value in request.headers.raw_items():
        lower = name.lower()
        headers[lower] = f"{headers[lower]}, {value}" if lower in headers else value
    path, _, query = request.path.partition("?")
    return HttpRequest(request.method, path, query, headers)


async def connected(settings: RelayEntry, request: Request) -> ClientConnection:
    """A WebSocket to the image server, opened by what the client has asked for.

    Raises:
        NotOpenedError: it cannot be reached, or does not open one.
    """
    secure, host, port = split_upstream(settings.upstream)
    uri = _uri(request, secure)
    subprotocols = _subprotocols(request)
    more: dict[str, Any] = {"server_hostname": host} if secure else {}
    try:
        return await _Connect(
            uri,
            # The host in the URI is the client's, which the image server has to see.
            host=host,
            port=port,
            additional_headers=list(_handed_on(request.headers)),
            subprotocols=subprotocols or None,
            user_agent_header=None,
            compression=None,
            proxy=None,
            open_timeout=settings.open_timeout_s,
            ping_interval=settings.ping_interval_s,
            ping_timeout=settings.message_timeout_s,
            close_timeout=settings.close_timeout_s,
            max_size=settings.max_reply_bytes,
            **more,
        )
    except InvalidStatus as error:
        raise _not_opened(error.response.status_code) from error
    except TimeoutError as error:
        raise NotOpenedError(
            504,
            "upstream_timeout",
            f"The image server did not open the WebSocket in {settings.open_timeout_s:g} seconds. "
            "Ask again, or raise the relay's open_timeout_s.",
        ) from error
    except OSError as error:
        raise NotOpenedError(
            502,
            "upstream_unreachable",
            "The image server cannot be reached. Ask again when it runs; its address is the "
            "relay's upstream.",
        ) from error
    except WebSocketException as error:
        raise NotOpenedError(
            502,
            "upstream_invalid",
            "The image server does not answer as a WebSocket server does; is the relay's upstream "
            "its address?",
        ) from error


class _Connect(connect):
    """Opens what was asked for and nothing else."""

    def process_redirect(self, exc: Exception) -> Exception:
        """Follows none: where it leads was not checked."""
        return exc


def _not_opened(status: int) -> NotOpenedError:
    told = f"The image server answered the opening with status {status}."
    # Of a redirect, and of an answer that is no error, the client could make nothing.
    return NotOpenedError(status if 400 <= status <= 599 else 502, "upstream_refused", told)


def _uri(request: Request, secure: bool) -> str:
    """The address by which the image server is asked for exactly what was checked.

    Raises:
        NotOpenedError: the client's host or path would be changed on the way.
    """
    hosts = request.headers.get_all("host")
    if len(hosts) != 1 or not _HOST.fullmatch(hosts[0]):
        raise NotOpenedError(400, "host_invalid", "Send one Host, with a name or an address.")
    uri = f"{'wss' if secure else 'ws'}://{hosts[0]}{request.path}"
    try:
        parsed = parse_uri(uri)
    except (InvalidURI, ValueError):
        parsed = None
    if parsed is None or parsed.resource_name != request.path:
        raise NotOpenedError(
            400, "path_invalid", "Send the path as the server's documentation writes it."
        )
    return uri


def _subprotocols(request: Request) -> list[Subprotocol]:
    """What the client can speak.

    Raises:
        NotOpenedError: it does not say so as RFC 6455 does.
    """
    lines = request.headers.get_all("sec-websocket-protocol")
    names = [one.strip() for line in lines for one in line.split(",")]
    if not all(_TOKEN.fullmatch(one) for one in names):
        raise NotOpenedError(400, "subprotocol_invalid", "Send subprotocols as RFC 6455 says.")
    return [Subprotocol(one) for one in names]


def _handed_on(headers: Headers) -> Iterator[tuple[str, str]]:
    """What is for the image server, and not for the connection to the relay."""
    named = {
        one.strip().lower() for line in headers.get_all("connection") for one in line.split(",")
    }
    for name, value in headers.raw_items():
        lower = name.lower()
        if lower not in _OF_CONNECTION | named and not lower.startswith(_OURS):
            yield name, value
