"""Who may ask on the HTTP port, what is refused there, and how."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import re
import socket
from typing import Any

import grpc
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import ValidationError

from loragate.v1 import concept_pb2, concept_pb2_grpc
from loragate_server.config.listen import GrpcPort, Listen, Permission, Token
from loragate_server.config.tracing import TracingSection
from loragate_server.rest.body import JSON_BYTES
from loragate_server.tracing.export import Tracing
from tests.server.rest.conftest import JSON, Open, Rest

LIST = "/loragate.v1.ConceptService/ListConcepts"
AUDIT = "/loragate.v1.AuditService/Audit"
UPLOAD = "/loragate.v1.AuditService/AuditUpload"


def loopback(**listen: Any) -> Listen:
    return Listen(grpc="127.0.0.1:0", http="127.0.0.1:0", **listen)


def token(name: str, *permissions: Permission) -> Token:
    digest = hashlib.sha256(name.encode()).hexdigest()
    return Token(name=name, sha256=digest, permissions=frozenset(permissions))


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {name}"}


async def test_it_says_what_grpc_says_of_the_library(rest: Open) -> None:
    here = await rest()
    status, told, headers = await here.ask("GET", "/v1/concepts?page_size=3")
    async with grpc.aio.insecure_channel(here.front.address) as channel:
        stub = concept_pb2_grpc.ConceptServiceStub(channel)  # type: ignore[no-untyped-call]
        answer = await stub.ListConcepts(concept_pb2.ListConceptsRequest(page_size=3))
    assert status == 200
    assert headers["Content-Type"].startswith("application/json")
    assert told["library_digest"] == answer.library_digest
    assert [one["concept_id"] for one in told["concepts"]] == [
        one.concept_id for one in answer.concepts
    ]
    assert here.front.calls.handled == [(LIST, "OK")] * 2


async def test_a_refusal_is_a_problem_with_reason_remedy_and_the_callers_request_id(
    rest: Open,
) -> None:
    here = await rest()
    status, told, headers = await here.ask(
        "GET", "/v1/concepts/nobody", headers={"X-Request-Id": "mine-1"}
    )
    assert headers["Content-Type"].startswith("application/problem+json")
    assert headers["X-Request-Id"] == told["request_id"] == "mine-1"
    assert (status, told["status"], told["code"]) == (404, 404, "NOT_FOUND")
    assert told["type"] == "tag:loragate.dev,2025:CONCEPT_UNKNOWN"
    assert (told["reason"], told["metadata"]) == ("CONCEPT_UNKNOWN", {"concept_id": "nobody"})
    assert all((told["title"], told["detail"], told["remedy"]))


async def test_what_may_be_asked_again_says_when(rest: Open) -> None:
    here = await rest()
    body = json.dumps({"adapters": [{"inline_bytes": "aaaa"}]})
    status, told, headers = await here.ask("POST", "/v1/audits", data=body, headers=JSON)
    assert (status, told["reason"]) == (503, "NOT_READY")  # there is no model here
    assert 2 <= told["retry_after_s"] <= int(headers["Retry-After"]) <= 4


async def test_before_the_models_are_there_nothing_is_decided(rest: Open) -> None:
    here = await rest(closed=True)
    status, told, headers = await here.ask("GET", "/v1/concepts")
    assert (status, told["reason"]) == (503, "NOT_READY")
    assert "Retry-After" in headers
    assert (await here.ask("GET", "/openapi.json"))[0] == 200


async def test_a_server_that_drains_says_so(rest: Open) -> None:
    here = await rest()
    await here.front.server.drain()
    status, told, _ = await here.ask("GET", "/v1/concepts")
    assert (status, told["reason"]) == (503, "DRAINING")


async def test_a_token_may_do_over_http_what_it_may_over_grpc(rest: Open) -> None:
    tokens = (token("reader", Permission.READ), token("proxy", Permission.CHECK))
    here = await rest(GrpcPort(listen=loopback(), tokens=tokens))
    status, told, headers = await here.ask("GET", "/v1/concepts")
    assert (status, told["reason"]) == (401, "UNAUTHENTICATED")
    assert headers["WWW-Authenticate"].startswith("Bearer")
    for wrong in ("Bearer nobody", "Basic reader", "Bearer "):
        asked = await here.ask("GET", "/v1/concepts", headers={"Authorization": wrong})
        assert asked[0] == 401
    assert (await here.ask("GET", "/v1/concepts", headers=bearer("proxy")))[0] == 403
    assert (await here.ask("GET", "/v1/concepts", headers=bearer("reader")))[0] == 200
    status, told, _ = await here.ask("DELETE", "/v1/concepts/bomb", headers=bearer("reader"))
    assert (status, told["reason"]) == (403, "PERMISSION_DENIED")
    assert here.front.calls.handled[0] == (LIST, "UNAUTHENTICATED")


async def test_a_stranger_is_refused_before_anything_of_the_body_is_read(rest: Open) -> None:
    here = await rest(GrpcPort(listen=loopback(), tokens=(token("one", Permission.AUDIT),)))
    reader, writer = await asyncio.open_connection(*here.address.rsplit(":", 1))
    writer.write(
        b"POST /v1/audits HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: 5000000\r\n\r\n"
    )
    assert b" 401 " in await reader.readline()
    writer.close()


@pytest.mark.parametrize("insecure", [False, True])
async def test_off_loopback_nobody_asks_without_a_token(rest: Open, insecure: bool) -> None:
    listen = Listen(grpc="127.0.0.1:0", http="0.0.0.0:0")
    here = await rest(GrpcPort(listen=listen, insecure_off_loopback=insecure))
    status, told, _ = await here.ask("GET", "/v1/concepts")
    assert status == (200 if insecure else 401)
    if not insecure:
        assert "Set tokens" in told["remedy"]


def test_the_grpc_port_keeps_its_own_rule() -> None:
    with pytest.raises(ValidationError, match="not on loopback"):
        GrpcPort(listen=Listen(grpc="0.0.0.0:0", http="127.0.0.1:0"))


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "https://gate.example.com"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
    ],
)
async def test_a_page_of_another_site_can_ask_nothing(
    rest: Open, headers: dict[str, str], status: int
) -> None:
    port = GrpcPort(listen=loopback(), tokens=(token("reader", Permission.READ),))
    here = await rest(port, public_url="https://gate.example.com")
    found, told, _ = await here.ask("GET", "/v1/concepts", headers=bearer("reader") | headers)
    assert found == status
    if status != 200:
        assert told["reason"] == "PERMISSION_DENIED"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "evil.example:80"}, 421),
        ({"Host": "localhost:9464"}, 200),
        ({"Host": "[::1]:9464"}, 200),
        ({"X-Forwarded-For": "203.0.113.7"}, 403),
        ({"Via": "1.1 proxy"}, 403),
        ({"Forwarded": "for=203.0.113.7"}, 403),
    ],
)
async def test_who_shows_nothing_is_on_this_machine(
    rest: Open, headers: dict[str, str], status: int
) -> None:
    here = await rest()
    found, told, _ = await here.ask("GET", "/v1/concepts", headers=headers)
    assert found == status
    if status != 200:
        assert told["reason"] == "PERMISSION_DENIED"


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_behind_the_proxy_of_a_console_nobody_asks_without_a_token(
    rest: Open, method: str
) -> None:
    """A stranger may give any host to a proxy that passes hosts on."""
    here = await rest(public_url="https://gate.example.com")
    found, told, _ = await here.ask(method, "/v1/concepts/bomb", headers={"Host": "localhost"})
    assert (found, told["reason"]) == (403, "PERMISSION_DENIED")
    assert "console.public_url is set" in told["detail"]


async def test_a_console_of_this_machine_has_no_proxy(rest: Open) -> None:
    here = await rest(public_url="http://localhost:9464")
    assert (await here.ask("GET", "/v1/concepts"))[0] == 200


async def test_without_a_console_no_page_may_ask(rest: Open) -> None:
    here = await rest()
    origin = {"Origin": f"http://{here.address}"}
    assert (await here.ask("GET", "/v1/concepts", headers=origin))[0] == 403


async def test_with_a_token_the_server_may_have_any_name(rest: Open) -> None:
    here = await rest(GrpcPort(listen=loopback(), tokens=(token("reader", Permission.READ),)))
    headers = bearer("reader") | {"Host": "loragate.internal:9464"}
    assert (await here.ask("GET", "/v1/concepts", headers=headers))[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": "application/json; charset=utf-16"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ],
)
async def test_a_body_of_another_type_is_refused_unread(
    rest: Open, headers: dict[str, str]
) -> None:
    here = await rest()
    for path in ("/v1/audits", "/v1/audits:watch", "/v1/audits:upload", "/v1/concepts"):
        status, told, _ = await here.ask("POST", path, data=b"{}", headers=headers)
        assert (status, told["field"]) == (415, "Content-Type")


async def sent(here: Rest, request: bytes) -> tuple[int, Any, bytes]:
    """Status, document and head of the answer to bytes that a client would not send."""
    reader, writer = await asyncio.open_connection(*here.address.rsplit(":", 1))
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    [length] = re.findall(rb"(?i)content-length: (\d+)", head)
    body = await reader.readexactly(int(length))
    writer.close()
    return int(head.split()[1]), json.loads(body), head


@pytest.mark.parametrize(
    ("target", "field"),
    [
        (b"/v1/concepts/%FF", "path"),
        (b"/v1/concepts/bomb%C3", "path"),
        (b"/v1/concepts/%ED%A0%80", "path"),
        (b"/v1/concepts/%zz", "path"),
        (b"/v1/concepts/bomb%", "path"),
        (b"/v1/audits/%ff", "path"),
        (b"/v1/audits?caller_service=%FF", "query"),
        (b"/v1/audits?caller_service=100%", "query"),
    ],
)
async def test_an_address_that_cannot_be_decoded_is_refused_and_not_read_as_it_stands(
    rest: Open, target: bytes, field: str
) -> None:
    here = await rest()
    status, told, head = await sent(here, b"GET %b HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % target)
    assert b"application/problem+json" in head
    assert (status, told["reason"], told["field"]) == (400, "REQUEST_INVALID", field)
    assert "percent escape" in told["detail"]


async def test_letters_that_are_escaped_as_they_should_be_are_read(rest: Open) -> None:
    here = await rest()
    status, told, _ = await here.ask("GET", "/v1/concepts/%E7%8C%AB%25")
    assert (status, told["metadata"]) == (404, {"concept_id": "猫%"})


@pytest.mark.parametrize("method", [b"GET", b"DELETE"])
@pytest.mark.parametrize(
    "body",
    [b"Content-Length: 2\r\n\r\n{}", b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"],
)
async def test_a_body_where_none_is_taken_is_refused(
    rest: Open, method: bytes, body: bytes
) -> None:
    here = await rest()
    request = b"%b /v1/concepts/bomb HTTP/1.1\r\nHost: 127.0.0.1\r\n%b" % (method, body)
    status, told, _ = await sent(here, request)
    assert (status, told["reason"]) == (400, "REQUEST_INVALID")
    assert "takes no body" in told["detail"]


async def test_an_empty_body_is_none(rest: Open) -> None:
    here = await rest()
    request = b"GET /v1/concepts HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n"
    assert (await sent(here, request))[0] == 200


async def test_a_body_in_another_transfer_coding_is_refused_unread(rest: Open) -> None:
    here = await rest()
    request = (
        b"POST /v1/audits HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    )
    status, told, _ = await sent(here, request)
    assert (status, told["field"]) == (415, "Content-Type")


async def test_a_token_that_is_no_text_is_one_that_nobody_has(rest: Open) -> None:
    here = await rest(GrpcPort(listen=loopback(), tokens=(token("one", Permission.READ),)))
    request = b"GET /v1/concepts HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xff\r\n\r\n"
    status, told, head = await sent(here, request)
    assert (status, told["reason"]) == (401, "UNAUTHENTICATED")
    assert b"WWW-Authenticate: Bearer" in head


async def test_an_address_or_a_verb_that_is_none_is_a_problem_too(rest: Open) -> None:
    here = await rest()
    status, told, headers = await here.ask("PUT", "/v1/audits")
    assert (status, told["status"]) == (405, 405)
    assert set(headers["Allow"].split(",")) == {"GET", "POST"}
    assert headers["Content-Type"].startswith("application/problem+json")
    assert (await here.ask("GET", "/v1/audits/a/b"))[0] == 404
    assert (await here.ask("POST", "/v1/audits:nothing"))[0] == 404


async def test_a_body_that_is_too_large_is_refused_at_once(rest: Open) -> None:
    here = await rest()
    large = io.BytesIO(b" " * (JSON_BYTES + 1))
    assert (await here.ask("POST", "/v1/audits", data=large, headers=JSON))[0] == 413
    lines = {"Content-Type": "application/x-ndjson"}
    for path, headers in (("/v1/audits", JSON), ("/v1/concepts", lines)):
        reader, writer = await asyncio.open_connection(*here.address.rsplit(":", 1))
        kind = headers["Content-Type"].encode()
        writer.write(b"POST %b HTTP/1.1\r\nHost: 127.0.0.1\r\n" % path.encode())
        writer.write(b"Transfer-Encoding: chunked\r\nContent-Type: %b\r\n\r\n" % kind)
        for _ in range(JSON_BYTES // 65536 + 2):
            writer.write(b"10000\r\n" + b" " * 65536 + b"\r\n")
        assert b" 413 " in await reader.readline()
        writer.close()


@pytest.mark.parametrize("sent", [b"", b'{"adapters"'])
async def test_a_peer_that_sends_nothing_more_is_given_up(rest: Open, sent: bytes) -> None:
    here = await rest(GrpcPort(listen=loopback(idle_timeout_s=0.3)))
    reader, writer = await asyncio.open_connection(*here.address.rsplit(":", 1))
    writer.write(
        b"POST /v1/audits HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        b"Content-Length: 100\r\n\r\n" + sent
    )
    assert b" 504 " in await reader.readline()
    writer.close()
    assert here.front.calls.handled == [(AUDIT, "DEADLINE_EXCEEDED")]


async def test_a_call_that_owes_makes_room_for_one_that_does_not(rest: Open) -> None:
    here = await rest(GrpcPort(listen=loopback(max_concurrent_calls=1)))
    reader, writer = await asyncio.open_connection(*here.address.rsplit(":", 1))
    writer.write(
        b"POST /v1/audits HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        b"Content-Length: 100\r\n\r\n"
    )
    await until_started(here)
    async with grpc.aio.insecure_channel(here.front.address) as channel:
        stub = concept_pb2_grpc.ConceptServiceStub(channel)  # type: ignore[no-untyped-call]
        await stub.ListConcepts(concept_pb2.ListConceptsRequest(), timeout=20)
    assert b" 429 " in await reader.readline()
    writer.close()


async def until_started(here: Rest) -> None:
    """Until the one call that was begun holds its place."""
    turnstile = here.front.server.calls._interceptors[-1]
    for _ in range(500):
        if turnstile._calls.taken:  # type: ignore[attr-defined]
            return
        await asyncio.sleep(0.01)
    pytest.fail("the call did not come in")


@pytest.mark.parametrize("time", ["0", "-1", "1h", "nan", "inf", "1e3", "100000", ""])
async def test_a_time_that_is_none_is_refused(rest: Open, time: str) -> None:
    here = await rest()
    status, told, _ = await here.ask("GET", "/v1/concepts", headers={"Request-Timeout": time})
    assert (status, told["field"]) == (400, "Request-Timeout")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("?adapter.path=/etc/passwd", "adapter.path"),
        ("?sha265=a", "sha265"),
    ],
)
async def test_an_upload_says_what_will_come(rest: Open, query: str, field: str) -> None:
    here = await rest()
    headers = {"Content-Type": "application/octet-stream"}
    path = f"/v1/audits:upload{query}"
    status, told, _ = await here.ask("POST", path, data=b"x" * 100, headers=headers)
    assert status == 400
    assert field in told.get("field", "") + told["detail"]


async def test_an_upload_without_a_length_is_refused(rest: Open) -> None:
    here = await rest()
    with socket.create_connection(tuple(here.address.rsplit(":", 1))) as peer:
        peer.sendall(
            b"POST /v1/audits:upload HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            b"Content-Type: application/octet-stream\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        )
        answer = await asyncio.to_thread(peer.recv, 65536)
    assert b" 411 " in answer.partition(b"\r\n")[0]


@pytest.mark.parametrize("digest", ["sha-256=:abc:", "sha-512=:AA==:", "x"])
async def test_a_digest_that_is_none_is_refused(rest: Open, digest: str) -> None:
    here = await rest()
    headers = {"Content-Type": "application/octet-stream", "Content-Digest": digest}
    status, told, _ = await here.ask("POST", "/v1/audits:upload", data=b"x", headers=headers)
    assert (status, told["field"]) == (400, "Content-Digest")


async def test_a_span_has_the_name_of_the_method_and_says_by_which_address(rest: Open) -> None:
    exporter = InMemorySpanExporter()
    tracing = Tracing(TracingSection(sample_ratio=1.0), exporter)
    here = await rest(tracer=tracing)
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    await here.ask("GET", "/v1/concepts/nobody", headers=headers)
    await asyncio.to_thread(tracing.close)
    [span] = exporter.get_finished_spans()
    assert span.name == "loragate.v1.ConceptService/GetConcept"
    assert span.context is not None
    assert f"{span.context.trace_id:032x}" == trace
    assert span.attributes is not None
    assert span.attributes["http.route"] == "/v1/concepts/{concept_id}"
    assert span.attributes["rpc.response.status_code"] == "NOT_FOUND"


async def test_a_span_of_a_call_that_is_turned_away_says_by_which_address(rest: Open) -> None:
    exporter = InMemorySpanExporter()
    tracing = Tracing(TracingSection(sample_ratio=1.0), exporter)
    known = (Token(name="one", sha256="0" * 64),)
    here = await rest(GrpcPort(listen=loopback(), tokens=known), tracer=tracing)
    assert (await here.ask("GET", "/v1/concepts/nobody"))[0] == 401
    await asyncio.to_thread(tracing.close)
    [span] = exporter.get_finished_spans()
    assert span.attributes is not None
    assert span.attributes["http.route"] == "/v1/concepts/{concept_id}"
