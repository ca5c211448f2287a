"""The middleware before an application: what gets in, what is answered, what is never read."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from loragate import AsyncAuditClient, AuditResult, Verdict
from loragate.integrations.asgi import (
    GuardedRequest,
    LoragateMiddleware,
    adapter_fields,
    json_paths,
)
from loragate.testing import FakeAuditServer


class App:
    """An application that reads its body and remembers what it was given."""

    def __init__(self) -> None:
        self.scopes: list[Any] = []
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.bodies.append(body)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"picture"})


async def ask(
    app: Any,
    body: Any = b"",
    *,
    path: str = "/generate",
    chunks: int = 1,
    headers: dict[str, str] | None = None,
    **scope: Any,
) -> tuple[int, Any]:
    """Status and body of the answer; JSON is read."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    size = max(1, -(-len(data) // chunks))
    parts = [data[at : at + size] for at in range(0, len(data), size)] or [b""]
    waiting = [
        {"type": "http.request", "body": part, "more_body": number < len(parts)}
        for number, part in enumerate(parts, 1)
    ]
    sent: list[Any] = []

    async def receive() -> Any:
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    named = {"content-length": str(len(data))} | (headers or {})
    encoded = [(name.encode(), value.encode()) for name, value in named.items()]
    request = {"type": "http", "method": "POST", "path": path, "headers": encoded} | scope
    await app(request, receive, send)
    answer = b"".join(message.get("body", b"") for message in sent)
    is_json = (b"content-type", b"application/json") in sent[0]["headers"]
    return sent[0]["status"], json.loads(answer) if is_json else answer


@pytest.fixture
async def audits(fake: FakeAuditServer) -> AsyncIterator[AsyncAuditClient]:
    async with AsyncAuditClient(fake.target) as client:
        yield client


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
def guarded(app: App, audits: AsyncAuditClient) -> LoragateMiddleware:
    return LoragateMiddleware(app, routes={"/generate": None}, client=audits, max_body_bytes=1000)


def asked(fake: FakeAuditServer) -> list[tuple[str, float | None]]:
    return [
        (one.path or one.uri, one.denoiser_strength if one.HasField("denoiser_strength") else None)
        for one in fake.calls[-1].request.adapters
    ]


@pytest.mark.parametrize(
    ("body", "adapters"),
    [
        ({"lora": "a.safetensors"}, [("a.safetensors", None)]),
        ({"lora_path": "/models/a", "lora_scale": 0.5}, [("/models/a", 0.5)]),
        ({"lora_path": "/models/a", "strength": 0.5}, [("/models/a", None)]),
        ({"input": {"lora_weights": "hf://o/n", "x": 1}}, [("hf://o/n", None)]),
        ({"loras": [{"path": "a", "scale": -2}, "b"]}, [("a", -2.0), ("b", None)]),
        ({"lora": {"name": "n", "local_path": "p", "scale": 1}}, [("p", 1.0)]),
        ({"loras": [{"path": "a", "scale": 0.5}] * 4}, [("a", 2.0)]),
        ({"loras": ["a", "b", "a"]}, [("a", 2.0), ("b", None)]),
        (
            {"lora": {"path": "one", "url": "https://h/two"}},
            [("one", None), ("https://h/two", None)],
        ),
        ({"a": [{"b": [{"LoRA_Name": "deep"}]}]}, [("deep", None)]),
        (
            {"lora": {"name": "n", "more": {"extra_lora": "hidden"}}},
            [("n", None), ("hidden", None)],
        ),
        (b'{"lora\\u005fpath": "escaped"}', [("escaped", None)]),
    ],
)
async def test_adapters_are_found_wherever_a_body_names_them(
    guarded: Any, app: App, fake: FakeAuditServer, body: Any, adapters: Any
) -> None:
    assert await ask(guarded, body) == (200, b"picture")
    assert asked(fake) == adapters
    assert app.scopes[0]["loragate"].decided


ADAPTERS = (
    *("hf_lora", "lora_1", "loraPath", "lora_list", "replicate_weights", "LoRAs", "extraLora"),
    *("HF_LORA", "sdxllora", "myLoRA", "lora-path", "lycoris", "locon_path", "weights_url"),
    *("adapterId", "peft_path", "styleLora", "characterLoRAs", "coLora", "loraModelName"),
)
OTHERS = (
    *("exploration", "colorado", "flora", "EXPLORATION", "Colorado", "FLORA", "colorAdjust"),
    *("valorant", "deplorable", "chlorate", "florals", "discoloration", "tailorAll", "Lorain"),
    *("ip_adapter", "t2i_adapter", "controlnet_adapter", "lorazepam", "explorationRate"),
    *("color_adjust", "lora_trigger", "hf_lora_token", "use_lora_prompt"),
)


@pytest.mark.parametrize("name", ADAPTERS)
async def test_a_field_that_is_named_like_an_adapter_is_asked_about_wherever_it_is(
    guarded: Any, fake: FakeAuditServer, name: str
) -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}
    multipart = {"content-type": "multipart/form-data; boundary=X"}
    part = f'--X\r\nContent-Disposition: form-data; name="{name}"\r\n\r\na/b\r\n--X--\r\n'
    for body, headers, query in (
        ({"input": [{name: "a/b"}]}, None, b""),
        ({"payload": json.dumps({name: "a/b"})}, None, b""),
        (f"{name}=a%2Fb".encode(), form, b""),
        (f"request[{name}]=a/b".encode(), form, b""),
        (part.encode(), multipart, b""),
        (b"", None, f"{name}=a/b".encode()),
    ):
        fake.calls.clear()
        status, _ = await ask(guarded, body, headers=headers, query_string=query)
        assert (status, asked(fake)) == (200, [("a/b", None)]), (body, query)


@pytest.mark.parametrize("name", OTHERS)
async def test_a_field_that_only_sounds_like_one_is_not_asked_about(
    guarded: Any, fake: FakeAuditServer, name: str
) -> None:
    assert (await ask(guarded, {"input": {name: "a/b"}}))[0] == 200
    assert (await ask(guarded, query_string=f"{name}=a".encode()))[0] == 200
    assert not fake.calls


@pytest.mark.parametrize(
    ("body", "adapters"),
    [
        (
            {"hf_lora": "a", "lora_scale": 0.5, "extra_lora": "b", "extra_lora_scale": 0.7},
            [("a", 0.5), ("b", 0.7)],
        ),
        (
            {"lora_1": "a", "lora_1_scale": 0.3, "lora_2": "b", "lora_scale_2": 0.4},
            [("a", 0.3), ("b", 0.4)],
        ),
        ({"loras": ["a", "b"], "lora_scales": [0.5, 0.6]}, [("a", 0.5), ("b", 0.6)]),
        ({"loraPath": "a", "loraScale": 3}, [("a", 3.0)]),
        ({"loras": {"a": 0.5, "b": 2}}, [("a", 0.5), ("b", 2.0)]),
        ({"lora_scales": {"a": 0.5, "unet": 1}}, [("a", 0.5)]),
        ({"lora": {"source": {"url": "https://h/a"}, "scale": 2}}, [("https://h/a", 2.0)]),
        ({"style": "https://h/a-lora.safetensors"}, [("https://h/a-lora.safetensors", None)]),
        ({"loras": '[{"path": "a", "scale": 2}]'}, [("a", 2.0)]),
    ],
)
async def test_a_strength_belongs_to_the_adapter_with_which_it_shares_its_name(
    guarded: Any, fake: FakeAuditServer, body: Any, adapters: Any
) -> None:
    assert (await ask(guarded, body))[0] == 200
    assert asked(fake) == adapters


async def test_forms_say_strengths_as_texts_and_bring_files_along(
    guarded: Any, fake: FakeAuditServer
) -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}
    body = b"loras[0][path]=a&loras[0][scale]=0.5&loras[1][path]=b&prompt=x"
    assert (await ask(guarded, body, headers=form))[0] == 200
    assert asked(fake) == [("a", 0.5), ("b", None)]
    assert (await ask(guarded, query_string=b"lora=a&lora=b&lora_scale=-2"))[0] == 200
    assert asked(fake) == [("a", -2.0), ("b", -2.0)]
    upload = (
        b'--X\r\nContent-Disposition: form-data; name="file"; filename="s.safetensors"\r\n'
        b"Content-Type: application/octet-stream\r\n\r\nBYTES\r\n"
        b'--X\r\nContent-Disposition: form-data; name="note"\r\n\r\nhello\r\n--X--\r\n'
    )
    multipart = {"content-type": "multipart/form-data; boundary=X"}
    assert (await ask(guarded, upload, headers=multipart))[0] == 200
    assert [one.inline_bytes for one in fake.calls[-1].request.adapters] == [b"BYTES"]
    fake.default = Verdict.BLOCK
    assert (await ask(guarded, upload, headers=multipart))[0] == 403


@pytest.mark.parametrize(
    ("body", "kind", "why"),
    [
        (b'{"lora": "a"}', "application/x-www-form-urlencoded", "looks like JSON"),
        (b"lora=%ff", "application/x-www-form-urlencoded", "cannot be read"),
        (b"lora=\xff", "application/x-www-form-urlencoded", "not ASCII"),
        (b"lora=a&lora[path]=b", "application/x-www-form-urlencoded", "at once"),
        (b"lora=a&lora_scale=much", "application/x-www-form-urlencoded", "not a number"),
        (b"lora=a&lora_scale=1&lora_scale=3", "application/x-www-form-urlencoded", "2 strengths"),
        (b"hello", "multipart/form-data; boundary=X", "no end"),
        (b"--X--", "multipart/form-data", "no end, or no boundary"),
        (
            b"--X\r\nContent-Transfer-Encoding: base64\r\n\r\nx\r\n--X--",
            "multipart/form-data; boundary=X",
            "encoded",
        ),
        (b'{"prompt": "a <lora:evil:1> cat"}', "application/json", "by a tag"),
        (b'{"lora_1": 0.5}', "application/json", "left out by but_not"),
        (b'{"lora": "a", "lora_scale": 1, "loraScale": 2}', "application/json", "several"),
    ],
)
async def test_a_form_that_can_be_read_in_two_ways_is_refused(
    guarded: Any, app: App, fake: FakeAuditServer, body: bytes, kind: str, why: str
) -> None:
    status, answer = await ask(guarded, body, headers={"content-type": kind})
    assert status == 400
    assert why in answer["message"]
    assert not fake.calls
    assert not app.scopes


async def test_names_can_be_added_and_left_out(
    app: App, audits: AsyncAuditClient, fake: FakeAuditServer
) -> None:
    fields = adapter_fields(also=["Style"], but_not=["lora_help", "prompt"])
    guarded = LoragateMiddleware(app, routes={"/generate": fields}, client=audits)
    body = {"style": "s", "lora_help": "how", "prompt": "<lora:x:1>", "more": {"hf_lora": "h"}}
    assert (await ask(guarded, body))[0] == 200
    assert asked(fake) == [("s", None), ("h", None)]
    with pytest.raises(ValueError, match="'lora' cannot be asked about and be left out"):
        adapter_fields(also=["LoRA"], but_not=["lora"])
    with pytest.raises(ValueError, match="as a list"):
        adapter_fields(also="style")


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


async def test_long_packed_and_broken_bodies_are_refused(guarded: Any, app: App) -> None:
    assert (await ask(guarded, b" " * 1001))[0] == 413
    assert (await ask(guarded, b" " * 1001, headers={"content-length": "1"}, chunks=9))[0] == 413
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
