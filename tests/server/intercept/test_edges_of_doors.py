"""Upgrades, streams, messages and bodies, each where a wrong change was left unnoticed."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import pytest

from loragate_server.intercept.base import ImageServer
from loragate_server.intercept.extraction import Extraction, RefusedRequestError
from loragate_server.intercept.passing import shown, unlisted_message
from loragate_server.intercept.reading.bodies import (
    BodyLimits,
    coded_again,
    parse_json,
    plain_bytes,
)
from loragate_server.intercept.request import HttpRequest, Message
from tests.server.intercept.bodies import extractor, post

STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
HANDSHAKE = {
    "connection": "Upgrade",
    "upgrade": "websocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": base64.b64encode(bytes(16)).decode(),
}


def opening(path: str, **headers: str) -> HttpRequest:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return HttpRequest("GET", path, headers=HANDSHAKE | named)


def stream() -> HttpRequest:
    return HttpRequest("POST", STREAM, headers={"content-type": "application/grpc"})


def refusal(server: ImageServer, request: HttpRequest) -> RefusedRequestError:
    with pytest.raises(RefusedRequestError) as caught:
        server.settle(request)
    return caught.value


def test_an_upgrade_that_loads_nothing_is_settled_before_any_body() -> None:
    assert extractor("comfyui").settle(opening("/ws")) == Extraction()
    named = extractor("sglang", passed_routes=["UPGRADE /progress"])
    assert named.settle(opening("/progress")) == Extraction()
    assert named.reached(opening("/progress")) == "an upgrade by which nothing loads"
    assert named.reached(opening("/other")) == "an upgrade that is not known"


def test_an_upgrade_whose_messages_are_read_goes_to_the_relay() -> None:
    error = refusal(extractor("vllm_omni"), opening("/v1/realtime/video"))
    assert "GET /v1/realtime/video asks for websocket" in error.message
    assert "read by a relay alone" in error.message
    assert "intercept.relays.vllm_omni" in error.remedy


def test_an_upgrade_that_nobody_reads_is_refused_by_what_it_asks_for() -> None:
    server = extractor("sglang")
    assert (
        "asks for h2c, and the extractor sglang"
        in refusal(server, opening("/x", upgrade="h2c")).message
    )
    connect = HttpRequest("CONNECT", "/x", headers={":protocol": "webtransport"})
    assert "CONNECT /x asks for webtransport" in refusal(server, connect).message
    assert "asks for an upgrade" in refusal(server, HttpRequest("CONNECT", "/x")).message


def test_a_door_that_sees_messages_opens_what_is_read_and_what_loads_nothing() -> None:
    omni = extractor("vllm_omni")
    omni.open_socket(opening("/v1/realtime/video"))
    extractor("comfyui").open_socket(opening("/ws"))
    named = extractor("sglang", passed_routes=["UPGRADE /progress"])
    named.open_socket(opening("/progress"))
    for server in (omni, named):
        with pytest.raises(RefusedRequestError):
            server.open_socket(opening("/elsewhere"))
    with pytest.raises(RefusedRequestError, match="has a body"):
        omni.open_socket(replace(opening("/v1/realtime/video"), body=b"x"))
    for wrong in (
        {"sec_websocket_version": "8"},
        {"sec_websocket_key": "!" + HANDSHAKE["sec-websocket-key"]},
        {"sec_websocket_key": base64.b64encode(bytes(17)).decode()},
    ):
        with pytest.raises(RefusedRequestError, match="is not complete"):
            omni.open_socket(opening("/v1/realtime/video", **wrong))


@pytest.mark.parametrize("kind", ["triton", "kserve"])
def test_a_stream_opens_where_its_messages_are_read(kind: str) -> None:
    server = extractor(kind)
    server.open_socket(stream())
    assert server.opens_stream(stream())
    message = replace(stream(), message=Message.GRPC)
    assert server.settle(message) is None
    assert server.reached(message) == "a message in a stream that is read"


@pytest.mark.parametrize("kind", ["sglang", "vllm_omni", "comfyui"])
def test_a_stream_does_not_open_where_nobody_reads_its_messages(kind: str) -> None:
    server = extractor(kind)
    assert server.opens_stream(stream()) is False
    with pytest.raises(RefusedRequestError):
        server.open_socket(stream())
    with pytest.raises(RefusedRequestError):
        server.settle(replace(stream(), message=Message.GRPC))


def test_a_text_of_another_kind_is_no_message_of_a_stream() -> None:
    with pytest.raises(RefusedRequestError):
        extractor("triton").settle(replace(stream(), message=Message.TEXT))


def test_messages_are_read_in_the_sockets_of_a_server_alone() -> None:
    server = extractor("vllm_omni")
    text = HttpRequest("GET", "/v1/realtime/video", body=b"{}", message=Message.TEXT)
    assert server.settle(text) is None
    assert server.reached(text) == "a message in a WebSocket that is read"
    with pytest.raises(RefusedRequestError) as caught:
        server.settle(replace(text, message=Message.BINARY))
    assert "/v1/realtime/video" in caught.value.message
    elsewhere = replace(text, path="/elsewhere")
    assert server.reached(elsewhere) == "a message that is not read"
    with pytest.raises(RefusedRequestError):
        server.settle(elsewhere)


def test_messages_of_an_upgrade_that_loads_nothing_pass_unread() -> None:
    server = extractor("sglang", passed_routes=["UPGRADE /progress"])
    for kind in (Message.TEXT, Message.BINARY):
        message = HttpRequest("GET", "/progress", body=b"\x00", message=kind)
        assert server.settle(message) == Extraction()


def test_sockets_open_where_a_server_has_some() -> None:
    assert extractor("comfyui").opens_sockets
    assert extractor("vllm_omni").opens_sockets
    assert extractor("sglang", passed_routes=["UPGRADE /progress"]).opens_sockets
    assert not extractor("sglang").opens_sockets


@pytest.mark.parametrize(("mode", "told"), [("warn", "warn"), ("pass", "pass")])
def test_a_message_of_a_kind_that_is_not_known_passes_as_the_operator_says(
    mode: str, told: str
) -> None:
    server = extractor("vllm_omni", unknown_routes=mode)
    message = HttpRequest("GET", "/v1/realtime/video", body=b"{}", message=Message.TEXT)
    assert server.unlisted_as(message, "session.start", {"session.start"}) == ""
    for kind in ("session.other", None, ["session.start"]):
        assert server.unlisted_as(message, kind, {"session.start"}) == told


@pytest.mark.parametrize(
    ("kind", "told"),
    [("a\nb", "of the type a?b is"), (None, "of no type is"), (3, "of no type is")],
)
def test_the_refusal_of_a_message_tells_its_type(kind: object, told: str) -> None:
    server = extractor("vllm_omni")
    message = HttpRequest("GET", "/v1/realtime/video", message=Message.TEXT)
    with pytest.raises(RefusedRequestError) as caught:
        server.unlisted_as(message, kind, ())
    assert told in caught.value.message
    assert told in str(unlisted_message(message, kind, "x"))


def test_a_route_that_loads_nothing_is_told_from_one_that_only_reads() -> None:
    server = extractor("comfyui")
    assert server.reached(post("/interrupt")) == "one that loads nothing"
    assert server.reached(post("/interrupt", method="get")).endswith("GET only reads")
    assert server.settle(post("/interrupt")) == Extraction()
    assert server.settle(post("/elsewhere", method="HEAD")) == Extraction()


def test_nothing_can_be_done_by_the_operator_where_a_server_knows_no_way() -> None:
    assert extractor("sglang").unless_adapter("/lora", "x") == ""


def test_a_path_is_shown_whole_up_to_its_limit() -> None:
    whole = "/" + "a" * 199
    for longest in range(1, 400):
        if shown("b" * longest).endswith("..."):
            break
    assert shown("b" * (longest - 1)) == "b" * (longest - 1)
    assert shown("b" * longest) == "b" * (longest - 1) + "..."
    assert shown("a\x00b\u202e") == "a?b?"
    assert shown(whole[:10]) == whole[:10]


def gone(request: HttpRequest, limits: BodyLimits) -> str:
    with pytest.raises(RefusedRequestError) as caught:
        plain_bytes(request, limits)
    return caught.value.message


def test_a_body_may_be_as_long_as_the_limit_and_no_longer() -> None:
    limits = BodyLimits(10, 5)
    assert plain_bytes(post("/x", b"a" * 10), limits) == b"a" * 10
    assert "more than 10 bytes" in gone(post("/x", b"a" * 11), limits)
    packed = coded_again(b"a" * 10, post("/x", content_encoding="gzip"))
    assert plain_bytes(post("/x", packed, content_encoding="gzip"), limits) == b"a" * 10
    packed = coded_again(b"a" * 11, post("/x", content_encoding="gzip"))
    assert "more than 10 bytes" in gone(post("/x", packed, content_encoding="gzip"), limits)


def test_what_was_not_compressed_stays_as_it_was() -> None:
    assert coded_again(b"abc", post("/x")) == b"abc"
    assert coded_again(b"abc", post("/x", content_encoding="identity")) == b"abc"


@pytest.mark.parametrize(("text", "read"), [(r'"\ud83d\ude00"', True), (r'"\ud83d"', False)])
def test_half_a_character_is_told_from_a_whole_one(text: str, read: bool) -> None:
    limits = BodyLimits(1000, 5)
    if read:
        assert parse_json(text, limits, "The body").value == "\U0001f600"
    else:
        with pytest.raises(RefusedRequestError, match="half a character"):
            parse_json(text, limits, "The body")


@pytest.mark.parametrize(("nested", "read"), [(5, True), (6, False)])
def test_json_may_be_nested_as_deep_as_the_limit(nested: int, read: bool) -> None:
    text: Any = "[" * nested + "]" * nested
    if read:
        assert parse_json(text, BodyLimits(1000, 5), "The body").text == text
    else:
        with pytest.raises(RefusedRequestError, match="deeper than 5 levels"):
            parse_json(text, BodyLimits(1000, 5), "The body")
