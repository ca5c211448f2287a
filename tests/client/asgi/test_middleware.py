"""The middleware before an application: what gets in, what is answered, what is never read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from loragate import AsyncAuditClient, AuditResult, Verdict
from loragate.integrations.asgi import (
    GuardedRequest,
    LoragateMiddleware,
    json_paths,
)
from loragate.testing import FakeAuditServer
from tests.client.asgi.application import App, ask, asked


async def test_a_body_in_pieces_reaches_the_application_unchanged(guarded: Any, app: App) -> None:
    body = b'{ "lora" :\n"a"  , "prompt": "a b"}'
    assert (await ask(guarded, body, chunks=5))[0] == 200
    assert app.bodies == [body]


async def test_requests_without_adapters_pass_unasked(
    guarded: Any, app: App, fake: FakeAuditServer
) -> None:
    for body in ({"prompt": "a lora"}, {"lora": None}, {"lora": ""}, {"loras": []}, b""):
        assert (await ask(guarded, body))[0] == 200
    assert not fake.calls
    assert {scope["loragate"] for scope in app.scopes} == {None}


@pytest.mark.parametrize("verdict", [Verdict.BLOCK, Verdict.REVIEW, Verdict.INCONCLUSIVE])
async def test_a_refusal_names_concept_and_decision(
    guarded: Any, app: App, fake: FakeAuditServer, verdict: Verdict
) -> None:
    fake.default = verdict
    status, answer = await ask(guarded, {"lora": "a"})
    assert status == 403
    assert answer["concept"] == "forbidden-concept"
    assert answer["decision_id"] in fake._decisions
    assert answer["verdict"] == verdict
    assert not app.scopes


async def test_review_passes_where_that_was_chosen(
    app: App, audits: AsyncAuditClient, fake: FakeAuditServer
) -> None:
    fake.default = Verdict.REVIEW
    lenient = LoragateMiddleware(app, routes={"/generate": None}, client=audits, on_review="allow")
    assert (await ask(lenient, {"lora": "a"}))[0] == 200
    with pytest.raises(ValueError, match="on_review"):
        LoragateMiddleware(app, routes={}, on_review="perhaps")  # type: ignore[arg-type]


async def test_a_sound_refusal_of_the_file_is_403_with_its_remedy(
    guarded: Any, app: App, fake: FakeAuditServer
) -> None:
    fake.fail_next("PATH_NOT_ALLOWED", message="Outside the roots.", remedy="Move it inside.")
    status, answer = await ask(guarded, {"lora": "/etc/passwd"})
    assert (status, answer["reason"]) == (403, "PATH_NOT_ALLOWED")
    assert answer["remedy"] == "Move it inside."
    assert not app.scopes


async def test_without_a_decision_the_answer_is_503(app: App, fake: FakeAuditServer) -> None:
    fake.fail_next("AUDIT_FAILED")
    for on_unavailable in ("block", "raise"):
        async with AsyncAuditClient(
            fake.target,
            timeout=1,
            on_unavailable=on_unavailable,  # type: ignore[arg-type]
        ) as client:
            guarded = LoragateMiddleware(app, routes={"/generate": None}, client=client)
            assert (await ask(guarded, {"lora": "a"}))[0] == 503
            fake.stop()
            assert (await ask(guarded, {"lora": "a"}))[0] == 503
    assert not app.scopes


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b'{"lora": "good", "lora": "evil"}', "occurs twice"),
        (b'{"a": {"lora": "good", "l\\u006fra": "evil"}}', "occurs twice"),
        (b'{"lora": "cut', "not sound JSON"),
        (b'{"lora": "a"} {"lora": "b"}', "not sound JSON"),
        ('{"lora": "a"}'.encode("utf-16"), "not sound JSON"),
        (b"\xff\xfe", "not sound JSON"),
        (b"[" * 900, "not sound JSON"),
        (b"lora=a", "not sound JSON"),
        (b'{"lora": "a", "lora_scale": NaN}', "no number in JSON"),
        ({"lora": 7}, "not an adapter"),
        ({"lora": {"scale": 1}}, "names no adapter"),
        ({"lora": {"path": ["a"]}}, "names no adapter"),
        ({"lora": {"path": "a", "scale": "1"}}, "not a number"),
        (b'{"lora": "a", "lora_scale": 1' + b"0" * 400 + b"}", "too large"),
    ],
)
async def test_what_can_be_read_in_two_ways_is_refused(
    guarded: Any, app: App, fake: FakeAuditServer, body: Any, why: str
) -> None:
    status, answer = await ask(guarded, body)
    assert status == 400
    assert why in answer["message"]
    assert not fake.calls
    assert not app.scopes


@pytest.mark.parametrize("declared", ["\xb2", "-1", "many", ""])
async def test_a_length_that_is_no_number_leaves_it_to_the_body(
    guarded: Any, declared: str
) -> None:
    plain = await ask(guarded, b"{}")
    assert await ask(guarded, b"{}", headers={"content-length": declared}) == plain


async def test_long_packed_and_broken_bodies_are_refused(guarded: Any, app: App) -> None:
    assert (await ask(guarded, b" " * 1001))[0] == 413
    assert (await ask(guarded, b" " * 1001, headers={"content-length": "1"}, chunks=9))[0] == 413
    assert (await ask(guarded, b"{}", headers={"content-length": "9" * 5000}))[0] == 413
    assert (await ask(guarded, b"", headers={"content-encoding": "gzip"}))[0] == 415

    async def disconnects() -> Any:
        return {"type": "http.disconnect"}

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await guarded({"type": "http", "path": "/generate", "headers": []}, disconnects, send)
    assert sent[0]["status"] == 400
    assert not app.scopes


async def test_other_routes_are_passed_on_with_their_bodies_unread(
    audits: AsyncAuditClient, fake: FakeAuditServer
) -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope, receive))

    async def receive() -> Any:
        raise AssertionError("nobody may read this")

    async def send(message: Any) -> None:
        raise AssertionError("nobody may answer this")

    guarded = LoragateMiddleware(app, routes={"/generate": None}, client=audits)
    for scope in (
        {"type": "http", "path": "/upload", "headers": []},
        {"type": "lifespan"},
        {"type": "websocket", "path": "/live", "headers": []},
    ):
        await guarded(scope, receive, send)
        assert seen[-1] == (scope, receive)
        assert "loragate" not in scope


async def test_detours_to_a_guarded_route_are_guarded(guarded: Any, fake: FakeAuditServer) -> None:
    fake.default = Verdict.BLOCK
    for path in ("/generate/", "//generate", "/generate"):
        assert (await ask(guarded, {"lora": "a"}, path=path))[0] == 403
    assert (await ask(guarded, {"lora": "a"}, path="/api/generate", root_path="/api"))[0] == 403
    assert (await ask(guarded, path="/generate", query_string=b"x=1&lora=evil"))[0] == 403
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await guarded({"type": "websocket", "path": "/generate", "headers": []}, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008}]


async def test_paths_and_functions_can_say_where_adapters_are(
    app: App, audits: AsyncAuditClient, fake: FakeAuditServer
) -> None:
    def by_header(request: GuardedRequest) -> list[Any]:
        return ["/models/" + request.headers["x-style"]]

    guarded = LoragateMiddleware(
        app,
        routes={"/a": json_paths("in.styles.*.url", "in.base"), "/b": by_header},
        client=audits,
    )
    body = {"in": {"styles": [{"url": "hf://o/n", "weight": 0.3}, {}], "base": "x"}, "lora": "not"}
    assert (await ask(guarded, body, path="/a"))[0] == 200
    assert asked(fake) == [("hf://o/n", 0.3), ("x", None)]
    assert (await ask(guarded, path="/b", headers={"x-style": "s"}))[0] == 200
    assert asked(fake) == [("/models/s", None)]
    assert (await ask(guarded, path="/b"))[0] == 400


async def test_a_rewriter_hands_on_the_audited_copy(app: App, audits: AsyncAuditClient) -> None:
    async def rewrite(request: GuardedRequest, result: AuditResult) -> bytes:
        copy = f"/copies/{result.adapters[0].sha256}.safetensors"
        return json.dumps(request.json | {"lora": copy}).encode()

    guarded = LoragateMiddleware(app, routes={"/generate": None}, client=audits, rewrite=rewrite)
    assert (await ask(guarded, {"lora": "style", "n": 1}))[0] == 200
    scope = app.scopes[0]
    digest = scope["loragate"].adapters[0].sha256
    assert json.loads(app.bodies[0]) == {"lora": f"/copies/{digest}.safetensors", "n": 1}
    assert dict(scope["headers"])[b"content-length"] == str(len(app.bodies[0])).encode()


async def test_fastapi_serves_behind_it(fake: FakeAuditServer, audits: AsyncAuditClient) -> None:
    fastapi = pytest.importorskip("fastapi")
    app = fastapi.FastAPI()
    app.add_middleware(LoragateMiddleware, routes={"/generate": None}, client=audits)

    @app.post("/generate")
    async def generate(body: dict[str, Any]) -> dict[str, Any]:
        return {"loaded": body["lora"]}

    fake.verdicts["evil"] = Verdict.BLOCK
    kind = {"content-type": "application/json"}
    scope = {"query_string": b"", "http_version": "1.1", "scheme": "http", "root_path": ""}
    assert await ask(app, {"lora": "good"}, headers=kind, **scope) == (200, {"loaded": "good"})
    assert (await ask(app, {"lora": "evil"}, headers=kind, **scope))[0] == 403
