"""What passes a relay, what does not, and how both sides hear of it."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from tests.server.gate.conftest import settle
from tests.server.relay.conftest import REALTIME, MakeSite, ending, free_port

FLAGS = json.dumps({"type": "feature_flags", "data": {"supports_preview_metadata": True}})


async def test_a_start_with_a_harmless_adapter_passes_as_it_was_sent(site: MakeSite) -> None:
    one = await site()
    sent = one.start(seed=0, fps=16.0)
    async with one.opened() as client:
        await client.send(sent)
        assert await client.recv() == sent
        await client.send('{"type": "session.stop"}')
        assert await client.recv() == '{"type": "session.stop"}'
    assert one.upstream.heard == [sent, '{"type": "session.stop"}']
    requests = "loragate_intercepted_requests_total"
    assert one.count(requests, extractor="vllm_omni", outcome="allow") == 1
    assert one.count(requests, extractor="vllm_omni", outcome="allow_no_adapter") == 2
    await settle(lambda: one.ended("client") == 1)
    assert one.count("loragate_relay_connections", extractor="vllm_omni") == 0


async def test_a_start_with_a_forbidden_adapter_ends_with_code_decision_and_sentence(
    site: MakeSite,
) -> None:
    one = await site()
    one.forbid()
    async with one.opened() as client:
        await client.send(one.start())
        code, reason = await ending(client)
    assert code == 1008
    decision = reason.removeprefix("adapter_block decision ").partition(":")[0]
    recorded = one.post.house.recorder.get(decision)
    assert recorded.caller.service == "relay/vllm_omni"
    assert "loragate: BLOCK" in reason
    assert one.upstream.heard == []
    await settle(lambda: bool(one.upstream.ended))
    assert one.upstream.ended == [(1001, "")]
    assert one.ended("refused") == 1


async def test_a_start_is_rewritten_to_the_audited_copy_where_the_relay_is_set_so(
    site: MakeSite,
) -> None:
    one = await site(relay={"rewrite": True})
    sent = one.start(prompt="ein Schiff äöü")
    async with one.opened() as client:
        await client.send(sent)
        got = json.loads(str(await client.recv()))
    copy = Path(got["lora"]["local_path"])
    original = Path(json.loads(sent)["lora"]["local_path"])
    assert copy != original
    assert copy.read_bytes() == original.read_bytes()
    got["lora"]["local_path"] = str(original)
    assert got == json.loads(sent)


async def test_messages_without_an_adapter_pass_while_none_of_an_unknown_type_does(
    site: MakeSite,
) -> None:
    one = await site()
    known = [
        '{"type": "session.interaction", "interaction": {"event": {"prompt": "left"}}}',
        '{"type": "session.ping"}',
    ]
    async with one.opened() as client:
        for message in known:
            await client.send(message)
            assert await client.recv() == message
        await client.send('{"type": "session.load"}')
        code, reason = await ending(client)
    assert (code, reason[:15]) == (1008, "route_unlisted:")
    assert one.upstream.heard == known


@pytest.mark.parametrize("mode", ["warn", "pass"])
async def test_an_unknown_type_passes_and_is_counted_where_unknown_routes_may(
    site: MakeSite, mode: str
) -> None:
    one = await site("comfyui", settings={"unknown_routes": mode})
    async with one.opened("/ws") as client:
        await client.send('{"type": "crystools"}')
        assert await client.recv() == '{"type": "crystools"}'
    outcome = {"warn": "unknown_warned", "pass": "unknown_passed"}[mode]
    name = "loragate_intercepted_requests_total"
    assert one.count(name, extractor="comfyui", outcome=outcome) == 1


async def test_the_page_of_comfyui_says_its_features_and_hears_progress_and_previews(
    site: MakeSite,
) -> None:
    one = await site("comfyui")
    for path in ("/ws?clientId=0af", "/api/ws?clientId=0af"):
        async with one.opened(path) as client:
            await client.send(FLAGS)
            assert await client.recv() == FLAGS
            server = one.upstream.connections[-1]
            progress = json.dumps({"type": "progress", "data": {"value": 1, "max": 20}})
            preview = b"\x00\x00\x00\x01\x00\x00\x00\x02" + bytes(1 << 20)
            await server.send(progress)
            await server.send([preview[:1000], preview[1000:]])
            assert await client.recv() == progress
            assert await client.recv() == preview
        assert one.upstream.opened[-1][":path"] == path


@pytest.mark.parametrize("message", ["prompt", "[]", "", '{"type": ["feature_flags"]}'])
async def test_what_a_page_of_comfyui_never_says_is_refused(site: MakeSite, message: str) -> None:
    one = await site("comfyui")
    async with one.opened("/ws") as client:
        await client.send(message)
        code, reason = await ending(client)
    assert code == 1008
    assert reason.partition(":")[0] in ("body_unreadable", "body_incomplete", "route_unlisted")
    assert one.upstream.heard == []


async def test_no_other_websocket_opens(site: MakeSite) -> None:
    one = await site()
    for path in ("/v1/realtime", "/ws", "/x/v1/realtime/video", "/v1/realtime/videos", "/"):
        status, body = await one.refusal(path)
        assert (status, body["error"]["code"]) == (403, "upgrade_refused"), path
    assert one.upstream.opened == []


async def test_a_websocket_that_an_operator_has_opened_passes_unread(site: MakeSite) -> None:
    one = await site("comfyui", settings={"passed_routes": ("UPGRADE /crystools/ws",)})
    async with one.opened("/crystools/ws") as client:
        for message in ("anything", b"\x00\x01"):
            await client.send(message)
            assert await client.recv() == message


async def test_the_image_server_sees_the_client_and_not_what_is_between_proxy_and_relay(
    site: MakeSite,
) -> None:
    tokens = [
        {"name": name, "sha256": hashlib.sha256(name.encode()).hexdigest(), "permissions": [may]}
        for name, may in (("envoy", "check"), ("user", "audit"))
    ]
    one = await site(tokens=tokens)
    headers = {
        "Authorization": "Bearer of-the-client",
        "Cookie": "session=1",
        "X-Forwarded-For": "203.0.113.7",
        "X-Loragate-Authorization": "Bearer envoy",
        "X-Loragate-Verdict": "ALLOW",
    }
    spoken: list[object] = ["one", "two"]
    async with one.opened(
        f"{REALTIME}?a=%2F&b=", additional_headers=headers, subprotocols=spoken, origin="http://ui"
    ) as client:
        assert client.subprotocol == "two"
        await client.send(one.start())
        await client.recv()
    (seen,) = one.upstream.opened
    seen = {name.lower(): value for name, value in seen.items()}
    assert seen[":path"] == f"{REALTIME}?a=%2F&b="
    assert seen["host"] == f"127.0.0.1:{one.port}"
    assert seen["authorization"] == "Bearer of-the-client"
    assert (seen["cookie"], seen["origin"]) == ("session=1", "http://ui")
    assert seen["x-forwarded-for"] == "203.0.113.7"
    assert not [name for name in seen if name.startswith("x-loragate-")]
    assert '"envoy"' in one.post.house.log_path.read_text()


async def test_with_tokens_only_a_proxy_with_the_permission_may_connect(site: MakeSite) -> None:
    tokens = [
        {"name": name, "sha256": hashlib.sha256(name.encode()).hexdigest(), "permissions": [may]}
        for name, may in (("envoy", "check"), ("user", "audit"))
    ]
    one = await site(tokens=tokens)
    for shown in (
        {},
        {"X-Loragate-Authorization": "Bearer user"},
        {"Authorization": "Bearer envoy"},
    ):
        status, body = await one.refusal(additional_headers=shown)
        assert (status, body["error"]["code"]) == (401, "unauthenticated")
    assert one.upstream.opened == []


async def test_an_image_server_that_is_away_slow_or_unwilling_is_named(
    site: MakeSite, upstream: object
) -> None:
    one = await site(relay={"upstream": f"http://127.0.0.1:{free_port()}"})
    status, body = await one.refusal()
    assert (status, body["error"]["code"]) == (502, "upstream_unreachable")
    assert "upstream" in body["error"]["message"]


@pytest.mark.parametrize(("answered", "told"), [(403, 403), (404, 404), (302, 502), (500, 500)])
async def test_the_image_servers_own_refusal_is_handed_on(
    site: MakeSite, answered: int, told: int
) -> None:
    one = await site()
    one.upstream.status = answered
    status, body = await one.refusal()
    assert (status, body["error"]["code"]) == (told, "upstream_refused")
    assert str(answered) in body["error"]["message"]


async def test_a_port_that_opens_nothing_is_given_up_after_the_time_limit(site: MakeSite) -> None:
    async def mute(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await done.wait()
        writer.close()
        await writer.wait_closed()

    done = asyncio.Event()
    async with await asyncio.start_server(mute, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        relay = {"upstream": f"http://127.0.0.1:{port}", "open_timeout_s": 0.3}
        status, body = await (await site(relay=relay)).refusal()
        done.set()
    assert (status, body["error"]["code"]) == (504, "upstream_timeout")


async def test_each_side_hears_how_the_other_has_ended(site: MakeSite) -> None:
    one = await site()
    async with one.opened() as client:
        await client.close(3001, "page closed")
    await settle(lambda: bool(one.upstream.ended))
    assert one.upstream.ended == [(3001, "page closed")]
    async with one.opened() as client:
        await settle(lambda: len(one.upstream.connections) == 2)
        server = one.upstream.connections[-1]
        await server.send("the last word")
        await server.close(4000, "video done")
        assert await client.recv() == "the last word"
        assert await ending(client) == (4000, "video done")
    async with one.opened() as client:
        await settle(lambda: len(one.upstream.connections) == 3)
        one.upstream.connections[-1].transport.abort()
        code, reason = await ending(client)
    assert (code, reason[:14]) == (1014, "upstream_gone:")


async def test_a_client_that_leaves_stops_its_audit(site: MakeSite) -> None:
    one = await site()
    one.post.house.engine.hold()
    async with one.opened() as client:
        await client.send(one.start())
        await one.post.house.engine.has_started()
        client.transport.abort()
    await settle(lambda: one.ended("client") == 1)
    one.post.house.engine.let_go()
    assert one.upstream.heard == []


async def test_a_server_that_stops_tells_both_sides(site: MakeSite) -> None:
    one = await site()
    async with one.opened() as client:
        await settle(lambda: bool(one.upstream.connections))
        await one.close()
        assert await ending(client) == (1001, "stopping: connect again")
    assert one.ended("stopping") == 1
    with pytest.raises(ConnectionRefusedError):
        async with one.opened():
            pass


async def test_where_no_decision_can_be_had_the_client_may_try_again(site: MakeSite) -> None:
    one = await site(relay={"check_timeout_s": 0.3})
    one.post.house.engine.hold()
    async with one.opened() as client:
        await client.send(one.start())
        code, reason = await ending(client)
    one.post.house.engine.let_go()
    assert (code, reason[:18]) == (1013, "deadline_exceeded:")
    assert one.upstream.heard == []
    assert one.ended("no_decision") == 1


async def test_in_a_dry_run_everything_passes_and_is_told(site: MakeSite) -> None:
    one = await site(intercept={"dry_run": True}, relay={"rewrite": True})
    one.forbid()
    sent = one.start()
    async with one.opened() as client:
        await client.send(sent)
        assert await client.recv() == sent
    name = "loragate_intercepted_requests_total"
    assert one.count(name, extractor="vllm_omni", outcome="dry_run_deny") == 1


async def test_more_connections_than_allowed_are_refused_until_one_ends(site: MakeSite) -> None:
    one = await site(relay={"max_connections": 1})
    async with one.opened() as client:
        status, body = await one.refusal()
        assert (status, body["error"]["code"]) == (503, "connections_full")
        await client.close()
    await settle(lambda: one.count("loragate_relay_connections", extractor="vllm_omni") == 0)
    async with one.opened() as client:
        await client.send("[]")
        with pytest.raises(ConnectionClosed):
            await client.recv()


async def test_connections_that_never_open_make_room_for_one_that_does(site: MakeSite) -> None:
    one = await site(relay={"max_connections": 5})
    crowd = [await asyncio.open_connection("127.0.0.1", one.port) for _ in range(30)]
    async with one.opened() as client:
        await client.send(one.start(0))
        assert json.loads(await client.recv())["type"] == "session.start"
        late = [await asyncio.open_connection("127.0.0.1", one.port) for _ in range(30)]
        await client.send(one.start(0))
        assert await client.recv()
    gone = [reader.at_eof() or reader.exception() for reader, _ in crowd]
    assert sum(map(bool, gone)) >= 20
    for _, writer in crowd + late:
        writer.close()
