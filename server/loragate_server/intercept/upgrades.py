"""Requests that leave HTTP behind, and that no extractor can read after that."""

from __future__ import annotations

import base64
import binascii

from loragate_server.intercept.refusals import upgrade_refused
from loragate_server.intercept.request import HttpRequest

PROTOCOL = ":protocol"
"""The pseudo header of an extended CONNECT, by which HTTP/2 and HTTP/3 upgrade."""

_REMEDY = "Open it as RFC 6455 says, with GET and without a body."


def is_upgrade(request: HttpRequest) -> bool:
    """Whether a request asks for another protocol.

    A proxy may have taken the headers of the connection out before it asks. Those that begin with
    Sec-WebSocket stay, and are sent for no other purpose.
    """
    tokens = {one.strip().lower() for one in request.header("connection").split(",")}
    return (
        request.method == "CONNECT"
        or bool({"upgrade", "http2-settings"} & tokens)
        or any(request.header(name) for name in ("upgrade", "http2-settings", PROTOCOL))
        or any(name.startswith("sec-websocket-") for name in request.headers)
    )


def check_handshake(request: HttpRequest) -> None:
    """Refuses what an image server would not answer with 101.

    After any other answer the server goes on reading HTTP, and a proxy that does not look at the
    answer would carry further requests to it that nobody sees.

    Raises:
        RefusedRequestError: UPGRADE_REFUSED.
    """
    if request.body or request.header("transfer-encoding"):
        raise upgrade_refused("The opening of a WebSocket has a body.", _REMEDY)
    if request.header("content-length").strip() not in ("", "0"):
        raise upgrade_refused("The opening of a WebSocket has a body.", _REMEDY)
    if request.header("http2-settings"):
        raise upgrade_refused("The request asks for two protocols.", _REMEDY)
    if request.method == "CONNECT":
        if request.header(PROTOCOL).lower() != "websocket":
            raise upgrade_refused("The protocol is not WebSocket.", _REMEDY)
        return
    if request.method != "GET" or request.header("upgrade").strip().lower() != "websocket":
        raise upgrade_refused("The protocol is not WebSocket.", _REMEDY)
    if request.header("sec-websocket-version").strip() != "13" or not _is_key(
        request.header("sec-websocket-key").strip()
    ):
        raise upgrade_refused("The opening of a WebSocket is not complete.", _REMEDY)


def _is_key(text: str) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) == 16
    except (binascii.Error, ValueError):
        return False
