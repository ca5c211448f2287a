from __future__ import annotations

import hashlib
import json

import grpc
import pytest

from loragate_server.config.listen import GrpcPort, Listen, Permission, Token
from loragate_server.rpc.envoy import ext_authz_pb2 as wire
from tests.server.rpc.front import MakeFront, files, front, golden, house, post, tiny, until

__all__ = ["files", "front", "house", "post", "tiny", "until"]

OK, DENIED = 0, 7


def set_headers(options: object) -> dict[str, str]:
    for one in options:  # type: ignore[attr-defined]
        assert one.append_action == wire.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
    return {one.header.key: one.header.value for one in options}  # type: ignore[attr-defined]


def changed(name: str, **changes: object) -> bytes:
    request = wire.CheckRequest.FromString(golden(name))
    for field, value in changes.items():
        setattr(request.attributes.request.http, field, value)
    return request.SerializeToString()


@pytest.mark.parametrize("name", ["load", "load_raw_header_map"])
async def test_a_harmless_adapter_passes_with_its_decision(front: MakeFront, name: str) -> None:
    one = await front()
    response = await one.check(name)
    assert response.status.code == OK
    told = set_headers(response.ok_response.headers)
    decision = one.post.house.recorder.get(told["x-loragate-decision-id"])
    assert told["x-loragate-verdict"] == "ALLOW"
    metadata = response.dynamic_metadata
    assert metadata["decision_id"] == decision.decision_id
    assert (metadata["verdict"], metadata["extractor"]) == ("ALLOW", "plain")
    assert metadata["mode"] == "ENFORCE"
    digest = decision.decision.evidence.adapters[0].sha256
    assert metadata["audited"][0].endswith(f"{digest[:2]}/{digest}.safetensors")
    assert list(response.ok_response.headers_to_remove) == []


async def test_a_forbidden_adapter_is_denied_as_the_image_server_would(front: MakeFront) -> None:
    one = await front()
    one.post.house.engine.score = 9.0
    response = await one.check("load")
    assert response.status.code == DENIED
    assert response.denied_response.status.code == 403
    body = json.loads(response.denied_response.body)
    headers = set_headers(response.denied_response.headers)
    assert headers["content-type"] == "application/json"
    assert headers["x-server"] == "plain"
    assert body["decision_id"] == headers["x-loragate-decision-id"] != ""
    assert response.dynamic_metadata["verdict"] == "BLOCK"


async def test_a_request_without_adapter_passes_and_a_clients_own_claims_are_removed(
    front: MakeFront,
) -> None:
    one = await front()
    for name in ("generate_without_adapter", "get_without_body"):
        response = await one.check(name)
        assert response.status.code == OK
        assert set(response.ok_response.headers_to_remove) == {
            "x-loragate-decision-id",
            "x-loragate-verdict",
        }
    assert one.post.house.recorded() == 0


@pytest.mark.parametrize(
    "name",
    ["partial_body", "filter_without_body", "chunked_without_body", "shorter_than_declared"],
)
async def test_a_body_that_is_not_all_there_is_denied(front: MakeFront, name: str) -> None:
    response = await (await front()).check(name)
    assert response.status.code == DENIED
    assert response.denied_response.status.code == 413
    assert "body_incomplete" in response.denied_response.body


async def test_a_body_smaller_than_its_size_is_denied(front: MakeFront) -> None:
    response = await (await front()).check(changed("load", size=10_000))
    assert response.denied_response.status.code == 413


async def test_a_target_keeps_its_query_apart_from_its_path(front: MakeFront) -> None:
    response = await (await front()).check(changed("load", path="/merge?x=/load"))
    assert "door_closed" in response.denied_response.body


async def test_route_and_call_choose_the_extractor(front: MakeFront) -> None:
    one = await front()
    one.post.house.engine.score = 9.0
    by_route = await one.check("load_per_route_extractor")
    by_call = await one.check("load", [("x-loragate-extractor", "other")])
    wrong = await one.check("load", [("x-loragate-extractor", "no-such")])
    assert json.loads(by_route.denied_response.body)["by"] == "other"
    assert json.loads(by_call.denied_response.body)["by"] == "other"
    assert wrong.denied_response.status.code == 503


async def test_what_is_no_http_request_is_denied_and_not_an_error(front: MakeFront) -> None:
    response = await (await front()).check(changed("load", body="\0{", path="/load"))
    assert response.status.code == DENIED


async def test_an_empty_message_is_denied(front: MakeFront) -> None:
    response = await (await front()).check(b"")
    assert response.denied_response.status.code == 403


async def test_a_check_ends_before_envoys_patience_with_a_denial(front: MakeFront) -> None:
    one = await front()
    one.post.house.engine.hold()
    response = await one.check("load", timeout_s=0.8)
    one.post.house.engine.let_go()
    assert response.status.code == DENIED
    assert response.denied_response.status.code == 503
    assert set_headers(response.denied_response.headers)["retry-after"] in ("5", "6", "7", "8")


async def test_a_server_that_drains_denies_loads_instead_of_failing(front: MakeFront) -> None:
    one = await front()
    await one.server.drain()
    await one.post.house.gate.drain(1)
    assert (await one.check("load")).denied_response.status.code == 503
    assert (await one.check("generate_without_adapter")).status.code == OK


async def test_only_holders_of_the_permission_may_ask(front: MakeFront) -> None:
    tokens = tuple(
        Token(
            name=name,
            sha256=hashlib.sha256(name.encode()).hexdigest(),
            permissions=frozenset({permission}),
        )
        for name, permission in (("envoy", Permission.CHECK), ("user", Permission.AUDIT))
    )
    one = await front(GrpcPort(listen=Listen(grpc="127.0.0.1:0"), tokens=tokens))
    response = await one.check("load", [("authorization", "Bearer envoy")])
    decision = one.post.house.recorder.get(response.dynamic_metadata["decision_id"])
    assert decision.caller.identity == "envoy"
    for authorization in ("", "Bearer user", "Bearer other"):
        metadata = [("authorization", authorization)] if authorization else []
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await one.check("load", metadata)
        assert failed.value.code() in (
            grpc.StatusCode.UNAUTHENTICATED,
            grpc.StatusCode.PERMISSION_DENIED,
        )
