"""What no list names: refused, or let through and counted, by what the operator says."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loragate_server.intercept.base import ImageServer
from loragate_server.intercept.extraction import RefusalCode, RefusedRequestError
from loragate_server.intercept.passing import MODES, SAFE, outline, passed_routes
from loragate_server.intercept.registry import EXTRACTORS
from loragate_server.intercept.request import HttpRequest
from testkit.lanes import examples
from tests.server.intercept.bodies import extractor, post

EXTRACTOR = {name: extractor(name) for name in EXTRACTORS}
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
OPENING = {
    "connection": "keep-alive, Upgrade",
    "upgrade": "websocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": KEY,
}
changing = st.sampled_from(["POST", "PUT", "PATCH", "DELETE", "MKCOL", "post"]) | st.from_regex(
    re.compile("[A-Z]{3,9}"), fullmatch=True
).filter(lambda method: method not in SAFE | {"CONNECT"})
# No server has routes like these, whose segments are longer than any word of theirs.
segments = st.from_regex(re.compile("[a-z0-9_.-]{20,30}x"), fullmatch=True)
paths = st.lists(segments, min_size=1, max_size=5).map(lambda parts: "/" + "/".join(parts))


def refused(server: ImageServer, request: HttpRequest) -> RefusedRequestError:
    with pytest.raises(RefusedRequestError) as caught:
        server.extract(request)
    return caught.value


def opening(path: str, **headers: str) -> HttpRequest:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return HttpRequest("GET", path, headers={**OPENING, **named})


@pytest.mark.parametrize("name", sorted(EXTRACTORS))
def test_a_change_by_a_route_in_no_list_is_denied_and_the_denial_says_what_would_open_it(
    name: str,
) -> None:
    @settings(deadline=None, max_examples=examples(30, 100))
    @given(method=changing, path=paths, body=st.binary(max_size=20))
    def check(method: str, path: str, body: bytes) -> None:
        refusal = refused(EXTRACTOR[name], HttpRequest(method, path, body=body))
        assert refusal.code is RefusalCode.ROUTE_UNLISTED
        told = str(refusal)
        assert method in told
        assert path in told
        assert name in told
        assert "unknown_routes" in told
        assert "passed_routes" in told

    check()


@pytest.mark.parametrize("name", sorted(EXTRACTORS))
def test_reading_passes_by_any_route_that_no_adapter_comes_in_by(name: str) -> None:
    @settings(deadline=None, max_examples=examples(20, 50))
    @given(method=st.sampled_from(sorted(SAFE)), path=paths)
    def check(method: str, path: str) -> None:
        extraction = EXTRACTOR[name].extract(HttpRequest(method, path))
        assert (extraction.adapters, extraction.unlisted) == ((), "")

    check()


@pytest.mark.parametrize("name", sorted(EXTRACTORS))
@pytest.mark.parametrize("mode", MODES)
def test_an_upgrade_by_a_route_in_no_list_is_refused_in_every_mode(name: str, mode: str) -> None:
    server = extractor(name, unknown_routes=mode)

    @settings(deadline=None, max_examples=10)
    @given(path=paths, protocol=st.sampled_from(["websocket", "h2c", "TLS/1.2", "x"]))
    def check(path: str, protocol: str) -> None:
        for request in (
            opening(path, upgrade=protocol),
            HttpRequest("GET", path, headers={"connection": "upgrade"}),
            HttpRequest("POST", path, headers={"upgrade": protocol}),
            HttpRequest("GET", path, headers={"sec-websocket-key": KEY}),
            HttpRequest("CONNECT", path, headers={":protocol": protocol}),
            HttpRequest("CONNECT", path),
        ):
            refusal = refused(server, request)
            assert refusal.code is RefusalCode.UPGRADE_REFUSED
            assert path in str(refusal)
            assert name in str(refusal)

    check()


@pytest.mark.parametrize("name", sorted(EXTRACTORS))
@pytest.mark.parametrize("mode", ["warn", "pass"])
def test_where_unknown_routes_pass_it_can_be_told_from_a_known_one_without_a_lora(
    name: str, mode: str
) -> None:
    server = extractor(name, unknown_routes=mode)
    assert server.extract(post("/deforum_api/no/such/batches", {"lora": "x"})).unlisted == mode
    assert server.extract(post("/anything", method="GET")).unlisted == ""


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("comfyui", "/behind/proxy/queue"),
        ("comfyui", "/queue/more"),
        ("comfyui", "/userdata"),
        ("comfyui", "/api/api/queue"),
        ("comfyui", "/userdata/..%2fmanager%2freboot"),
        ("comfyui", "/userdata/x%2f..%2f..%2fcustomnode%2finstall"),
        ("comfyui", "/queue;/../customnode/install"),
        ("comfyui", "/queue/../customnode/install"),
        ("triton", "/x/inference.GRPCInferenceService/ServerReady"),
        ("cog", "/evil/predictions/x/cancel"),
        ("sglang", "/v1/images/generations/lora"),
        ("invokeai", "/v1/images/upload"),
    ],
)
def test_what_only_looks_like_a_route_that_passes_does_not(name: str, path: str) -> None:
    assert refused(EXTRACTOR[name], post(path, {})).code in (
        RefusalCode.ROUTE_UNLISTED,
        RefusalCode.ROUTE_UNKNOWN,
    )


def test_the_method_of_a_route_that_passes_is_part_of_it() -> None:
    server = extractor("comfyui")
    assert server.extract(post("/queue", {})).unlisted == ""
    assert refused(server, post("/queue", {}, method="PUT")).code is RefusalCode.ROUTE_UNLISTED


def test_an_operator_adds_routes_and_prefixes_of_his_own() -> None:
    added: dict[str, Any] = {
        "passed_routes": ["POST /crystools/*", "DELETE /notes/**", "UPGRADE /crystools/ws"],
        "mounted_at": ["/images"],
    }
    server = extractor("comfyui", **added)
    for path in ("/crystools/monitor", "/images/queue", "/images/api/queue", "/api/crystools/x"):
        assert server.extract(post(path, {})).adapters == ()
    assert server.extract(post("/notes/a/b", method="DELETE")).adapters == ()
    assert server.extract(opening("/images/crystools/ws")).adapters == ()
    assert refused(server, post("/notes/a/b", {})).code is RefusalCode.ROUTE_UNLISTED
    assert refused(server, opening("/notes/a")).code is RefusalCode.UPGRADE_REFUSED


@pytest.mark.parametrize(
    "changes",
    [
        {"content_length": "5"},
        {"transfer_encoding": "chunked"},
        {"sec_websocket_version": "12"},
        {"sec_websocket_key": "short"},
        {"upgrade": "websocket, h2c"},
        {"upgrade": "h2c", "http2_settings": "AAMAAABk"},
        {"http2_settings": "AAMAAABk"},
    ],
)
def test_a_websocket_that_the_server_would_not_open_is_no_way_to_hide_requests(
    changes: dict[str, str],
) -> None:
    assert refused(extractor("comfyui"), opening("/ws", **changes)).code in (
        RefusalCode.UPGRADE_REFUSED,
    )


def test_a_websocket_by_http_2_opens_where_one_by_http_1_does() -> None:
    server = extractor("comfyui")
    headers = {":protocol": "websocket", "sec-websocket-version": "13"}
    assert server.extract(HttpRequest("CONNECT", "/ws", headers=headers)).adapters == ()
    assert server.extract(opening("/ws")).adapters == ()
    assert refused(server, HttpRequest("POST", "/ws", headers=OPENING)).code is (
        RefusalCode.UPGRADE_REFUSED
    )


@pytest.mark.parametrize("name", ["triton", "kserve"])
def test_a_stream_of_inferences_is_refused_before_its_first_message(name: str) -> None:
    request = HttpRequest(
        "POST", "/inference.GRPCInferenceService/ModelStreamInfer", body_complete=False
    )
    with pytest.raises(RefusedRequestError, match="Send each request with ModelInfer"):
        EXTRACTOR[name].settle(request)
    load = HttpRequest("POST", "/inference.GRPCInferenceService/ModelInfer", body_complete=False)
    assert EXTRACTOR[name].settle(load) is None


@pytest.mark.parametrize(
    "line", ["queue", "POST queue", "GET /queue", "POST /a/**/b", "post /queue", "POST /a?b", ""]
)
def test_a_route_that_is_not_written_as_one_is_an_error(line: str) -> None:
    with pytest.raises(ValueError, match="is no route"):
        passed_routes([line])
    with pytest.raises(ValueError, match="passed_routes"):
        extractor("comfyui", passed_routes=[line])


def test_a_mode_or_a_prefix_that_cannot_be_is_an_error() -> None:
    with pytest.raises(ValueError, match="unknown_routes: 'allow' is none of deny, warn, pass"):
        extractor("comfyui", unknown_routes="allow")
    with pytest.raises(ValueError, match="mounted_at: 'images'"):
        extractor("comfyui", mounted_at=["images"])


def test_logs_get_the_words_of_a_path_and_nothing_that_may_be_a_secret() -> None:
    path = "/v1/hooks/T0KEN-8f3a9c/run_batch/" + "a" * 40
    assert outline(HttpRequest("POST", path)) == "POST /v1/hooks/*/run_batch/*"
