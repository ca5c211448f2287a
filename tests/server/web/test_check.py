from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from loragate_server.app.doors import check_door, http_check
from loragate_server.config.schema import Config
from loragate_server.logs.lines import HumanFormatter
from loragate_server.metrics.metrics import Metrics
from loragate_server.web.check import CheckDoor
from loragate_server.web.readiness import Readiness
from loragate_server.web.server import WebServer
from tests.server.checkpoint.conftest import MakePost, Post, post
from tests.server.gate.conftest import files, house, tiny, until
from tests.server.intercept.bodies import extractor

__all__ = ["files", "house", "post", "tiny", "until"]

LOAD = json.dumps({"lora": "0.safetensors"}).encode()
CANARY = "canary-4be1-secret"


@dataclass
class Site:
    """The HTTP port, with its door open."""

    post: Post
    door: CheckDoor
    metrics: Metrics
    address: str
    session: aiohttp.ClientSession

    async def check(
        self,
        body: bytes | None = LOAD,
        method: str = "POST",
        uri: str = "/load",
        *,
        at: str = "/v1/check",
        verb: str = "POST",
        **headers: str,
    ) -> tuple[int, dict[str, str], dict[str, Any]]:
        """Status, headers and JSON of a check."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        original = {"X-Original-Method": method, "X-Original-URI": uri, **named}
        url = f"http://{self.address}{at}"
        async with self.session.request(verb, url, data=body, headers=original) as response:
            text = await response.text()
            return response.status, dict(response.headers), json.loads(text) if text else {}


MakeSite = Callable[..., Awaitable[Site]]


@pytest.fixture
async def site(post: MakePost) -> AsyncIterator[MakeSite]:
    async with AsyncExitStack() as stack:

        async def make(*, opened: bool = True, **settings: Any) -> Site:
            one, metrics = post(), Metrics()
            one.house.reference(0)
            metrics.follow_extractors(["plain", "other"])
            one.checkpoint._observer = metrics
            intercept = {
                "http": True,
                "extractors": {"plain": {"kind": "test"}},
                "max_body_bytes": 4096,
            }
            door = check_door(Config(intercept=intercept, **settings))
            if opened:
                door.open(http_check(one.checkpoint))
            server = WebServer("127.0.0.1:0", metrics.registry, Readiness([]), door)
            stack.push_async_callback(server.close)
            session = await stack.enter_async_context(aiohttp.ClientSession())
            return Site(one, door, metrics, await server.start(), session)

        yield make


async def test_a_harmless_adapter_gets_200_with_its_decision(site: MakeSite) -> None:
    one = await site()
    status, headers, _ = await one.check()
    assert status == 200
    assert headers["x-loragate-verdict"] == "ALLOW"
    decision = one.post.house.recorder.get(headers["x-loragate-decision-id"])
    assert decision.caller.service == "http/plain"


async def test_a_forbidden_adapter_gets_403_with_the_image_servers_body(site: MakeSite) -> None:
    one = await site()
    one.post.house.engine.score = 9.0
    status, headers, body = await one.check()
    assert status == 403
    assert body["decision_id"] == headers["x-loragate-decision-id"]
    assert headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("at", ["/v1/check/other", "/v1/check?extractor=other"])
async def test_the_path_or_the_query_choose_the_extractor(site: MakeSite, at: str) -> None:
    one = await site()
    _, _, body = await one.check(uri="/merge", at=at)
    assert body["by"] == "other"


async def test_a_request_without_adapter_passes(site: MakeSite) -> None:
    one = await site()
    status, headers, _ = await one.check(b'{"prompt": "a boat"}', uri="/draw?seed=1")
    assert status == 200
    assert headers["x-loragate-result"] == "allow_no_adapter"
    status, _, _ = await one.check(None, method="GET", uri="/health", verb="GET")
    assert status == 200


async def test_a_proxy_tells_of_an_upgrade_beside_its_own_connection(site: MakeSite) -> None:
    one = await site()
    one.post.checkpoint._extractors["plain"] = extractor("comfyui")
    opening = {
        "Sec_WebSocket_Version": "13",
        "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "X_Original_Upgrade": "websocket",
    }
    for uri, told, expected in [
        ("/ws?clientId=1", opening, 200),
        ("/other", opening, 403),
        ("/other", {"X_Original_Upgrade": "h2c"}, 403),
        ("/other", {"X_Original_Upgrade": ""}, 200),
    ]:
        status, _, _ = await one.check(None, method="GET", uri=uri, **told)
        assert status == expected, (uri, told)


async def test_a_proxy_that_asks_without_the_body_is_denied(site: MakeSite) -> None:
    one = await site()
    for headers in ({}, {"X_Original_Content_Length": str(len(LOAD))}):
        status, _, body = await one.check(None, verb="GET", **headers)
        assert (status, body["code"]) == (413, "body_incomplete")


async def test_a_compressed_body_is_seen_as_it_was_sent(site: MakeSite) -> None:
    status, _, body = await (await site()).check(b"no gzip", Content_Encoding="gzip")
    assert (status, body["code"]) == (400, "body_unreadable")


async def test_what_the_proxy_leaves_out_or_says_twice_is_an_error(site: MakeSite) -> None:
    one = await site()
    url = f"http://{one.address}/v1/check"
    twice = [("X-Original-Method", "POST"), ("X-Original-URI", "/a"), ("X-Original-URI", "/b")]
    lengths = [*twice[:2], *[("X-Original-Content-Length", each) for each in ("0", "24")]]
    wrong = [("X-Original-Method", "POST"), ("X-Original-URI", "load")]
    for headers in ([], twice, lengths, wrong):
        async with one.session.post(url, data=LOAD, headers=headers) as response:
            assert response.status == 400
            assert (await response.json())["error"]["code"] == "original_missing"


async def test_a_large_body_gets_413(site: MakeSite) -> None:
    status, _, _ = await (await site()).check(b" " * 5000)
    assert status == 413


async def test_before_the_models_are_loaded_everything_is_denied(site: MakeSite) -> None:
    status, _, _ = await (await site(opened=False)).check(None, method="GET", verb="GET", uri="/")
    assert status == 503


async def test_with_tokens_only_holders_of_the_permission_may_ask(site: MakeSite) -> None:
    tokens = [
        {"name": name, "sha256": hashlib.sha256(name.encode()).hexdigest(), "permissions": [may]}
        for name, may in (("nginx", "check"), ("user", "audit"))
    ]
    one = await site(tokens=tokens)
    assert (await one.check(Authorization="Bearer nginx"))[0] == 200
    for authorization in ("Bearer user", "Bearer other", "Basic bmdpbng="):
        assert (await one.check(Authorization=authorization))[0] == 401
    assert (await one.check())[0] == 401


async def test_the_port_has_no_such_path_unless_configured(site: MakeSite) -> None:
    server = WebServer("127.0.0.1:0", Metrics().registry, Readiness([]))
    address = await server.start()
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"http://{address}/v1/check", data=LOAD) as response,
    ):
        assert response.status == 404
    await server.close()


async def test_secrets_reach_neither_logs_nor_metrics_nor_records(
    site: MakeSite, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    one = await site()
    home = one.post.house
    tokens = {"Cookie": CANARY, "X_Api_Key": CANARY, "X_Request_Id": CANARY}
    bodies: list[tuple[str, bytes]] = [
        ("/load", json.dumps({"lora": "0.safetensors", "api_token": CANARY}).encode()),
        ("/load", json.dumps({"lora": f"https://hub.example/a?token={CANARY}"}).encode()),
        ("/load", json.dumps({"lora": f"{CANARY}.safetensors"}).encode()),
        ("/load", json.dumps({"lora": "0.safetensors", "strength": CANARY}).encode()),
        ("/load", f"{{{CANARY}".encode()),
        ("/fault", CANARY.encode()),
        ("/merge", CANARY.encode()),
        (f"/{CANARY}", b"{}"),
    ]
    answers = []
    for score in (0.0, 9.0):
        home.engine.score = score
        for path, body in bodies:
            for _ in range(10):
                uri = f"{path}?access_token={CANARY}"
                answers.append(await one.check(body, uri=uri, **tokens))
    assert {status for status, _, _ in answers} == {200, 400, 403, 503}
    async with one.session.get(f"http://{one.address}/metrics") as response:
        page = await response.text()
    assert 'loragate_intercepted_requests_total{extractor="plain",outcome="allow"}' in page
    lines = "".join(HumanFormatter().format(record) for record in caplog.records)
    assert "refused at http by plain" in lines
    assert CANARY not in lines
    assert CANARY not in page
    assert CANARY not in home.log_path.read_text()
    assert all(CANARY not in str(answer) for answer in answers)
    for file in home.log_path.parent.glob("audits.db*"):
        assert CANARY.encode() not in file.read_bytes()
