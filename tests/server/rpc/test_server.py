"""The gRPC front over a real connection: who gets in, what goes out, how it ends."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from loragate.v1 import audit_pb2, audit_pb2_grpc, concept_pb2, concept_pb2_grpc
from loragate_server.config.listen import GrpcPort, Listen, Peer, Permission, Tls, Token

LOOPBACK = Listen(grpc="127.0.0.1:0")
SERVING = health_pb2.HealthCheckResponse.SERVING


@asynccontextmanager
async def channel(
    address: str, credentials: grpc.ChannelCredentials | None = None
) -> AsyncIterator[grpc.aio.Channel]:
    made = (
        grpc.aio.insecure_channel(address)
        if credentials is None
        else grpc.aio.secure_channel(address, credentials)
    )
    async with made:
        yield made


def concepts(open_channel: grpc.aio.Channel) -> Any:
    return concept_pb2_grpc.ConceptServiceStub(open_channel)  # type: ignore[no-untyped-call]


def audits(open_channel: grpc.aio.Channel) -> Any:
    return audit_pb2_grpc.AuditServiceStub(open_channel)  # type: ignore[no-untyped-call]


async def list_concepts(open_channel: grpc.aio.Channel, **options: Any) -> Any:
    request = concept_pb2.ListConceptsRequest()
    return await concepts(open_channel).ListConcepts(request, timeout=10, **options)


async def refusal(call: Any) -> tuple[grpc.StatusCode, str, list[Any]]:
    """Status code, ErrorInfo reason and all details of a call that must fail."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    status = rpc_status.from_call(caught.value)
    if status is None:
        return caught.value.code(), "", []
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.domain == "loragate.dev"
    assert info.metadata["remedy"]
    return caught.value.code(), info.reason, list(status.details)


async def test_health_is_told_per_service_and_changes_with_the_drain(serve: Any) -> None:
    front = await serve(GrpcPort(listen=LOOPBACK))
    async with channel(front.address) as opened:
        stub = health_pb2_grpc.HealthStub(opened)
        for service in ("", "loragate.v1.AuditService", "loragate.v1.ConceptService"):
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == SERVING
        await front.server.drain()
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=""))
        assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
        code, reason, _ = await refusal(list_concepts(opened))
        assert (code, reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")


async def test_a_server_that_still_loads_says_when_to_come_back(serve: Any) -> None:
    front = await serve(GrpcPort(listen=LOOPBACK))
    reference = audit_pb2.AdapterReference(inline_bytes=b"x")
    async with channel(front.address) as opened:
        call = audits(opened).Audit(audit_pb2.AuditRequest(adapters=[reference]), timeout=10)
        code, reason, details = await refusal(call)
    assert (code, reason) == (grpc.StatusCode.UNAVAILABLE, "NOT_READY")
    retry = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(retry) for detail in details)
    assert 2000 <= retry.retry_delay.ToMilliseconds() <= 3000  # spread by chance


async def test_concepts_are_listed_in_pages(serve: Any) -> None:
    front = await serve(GrpcPort(listen=LOOPBACK))
    seen: list[str] = []
    token = ""
    async with channel(front.address) as opened:
        while True:
            request = concept_pb2.ListConceptsRequest(page_size=30, page_token=token)
            page = await concepts(opened).ListConcepts(request, timeout=10)
            seen += [concept.concept_id for concept in page.concepts]
            token = page.next_page_token
            if not token:
                break
        assert seen == sorted(set(seen))
        assert len(seen) == 64
        bad = concept_pb2.ListConceptsRequest(page_token="!!")
        _, reason, _ = await refusal(concepts(opened).ListConcepts(bad, timeout=10))
        assert reason == "PAGE_TOKEN_INVALID"
        unknown = concept_pb2.GetConceptRequest(concept_id="nobody")
        code, reason, _ = await refusal(concepts(opened).GetConcept(unknown, timeout=10))
        assert (code, reason) == (grpc.StatusCode.NOT_FOUND, "CONCEPT_UNKNOWN")


async def test_a_request_id_comes_back_unless_it_is_of_no_use(serve: Any) -> None:
    front = await serve(GrpcPort(listen=LOOPBACK))
    async with channel(front.address) as opened:
        for given, kept in (("abc-123", True), ("two words", False), ("x" * 200, False)):
            call = concepts(opened).ListConcepts(
                concept_pb2.ListConceptsRequest(), metadata=(("x-request-id", given),)
            )
            await call
            trailing = dict(await call.trailing_metadata())
            assert (trailing["x-request-id"] == given) is kept
            assert trailing["x-request-id"]


async def test_every_call_is_counted_under_its_status(serve: Any) -> None:
    front = await serve(GrpcPort(listen=LOOPBACK))
    async with channel(front.address) as opened:
        await list_concepts(opened)
        await refusal(audits(opened).GetAudit(audit_pb2.GetAuditRequest(decision_id="no")))
        nowhere = opened.unary_unary("/loragate.v1.AuditService/Nothing")
        with pytest.raises(grpc.aio.AioRpcError):
            await nowhere(b"")
    assert front.calls.handled == [
        ("/loragate.v1.ConceptService/ListConcepts", "OK"),
        ("/loragate.v1.AuditService/GetAudit", "NOT_FOUND"),
        ("/loragate.v1.AuditService/Nothing", "UNIMPLEMENTED"),
    ]


@pytest.mark.parametrize("switched_on", [True, False])
async def test_reflection_is_there_only_when_switched_on(serve: Any, switched_on: bool) -> None:
    front = await serve(GrpcPort(listen=LOOPBACK), reflection=switched_on)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    async with channel(front.address) as opened:
        call = reflection_pb2_grpc.ServerReflectionStub(opened).ServerReflectionInfo()
        if switched_on:
            await call.write(request)
            answer = await call.read()
            names = {service.name for service in answer.list_services_response.service}
            assert "loragate.v1.AuditService" in names
        else:
            # Nothing is written: gRPC calls it an internal error to write when the answer is there.
            assert await call.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_it_listens_on_a_unix_socket(serve: Any, tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/gate.sock"
    front = await serve(GrpcPort(listen=Listen(grpc=address)))
    assert front.address == address
    async with channel(address) as opened:
        assert (await list_concepts(opened)).library_digest


async def test_a_message_beyond_the_limit_is_refused(serve: Any) -> None:
    front = await serve(GrpcPort(listen=LOOPBACK), max_message_bytes=100_000)
    reference = audit_pb2.AdapterReference(inline_bytes=bytes(200_000))
    async with channel(front.address) as opened:
        request = audit_pb2.AuditRequest(adapters=[reference])
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await audits(opened).Audit(request, timeout=10)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0"])
async def test_it_does_not_listen_to_strangers_unprotected(serve: Any, address: str) -> None:
    with pytest.raises(ValueError, match="not on loopback and needs tls"):
        await serve(GrpcPort(listen=Listen(grpc=address)))


async def test_tokens_say_who_asks_and_what_they_may_do(serve: Any) -> None:
    def grant(name: str, *permissions: Permission) -> Token:
        digest = hashlib.sha256(f"secret of {name}".encode()).hexdigest()
        return Token(name=name, sha256=digest, permissions=frozenset(permissions))

    tokens = (grant("reader", Permission.READ), grant("gateway", Permission.AUDIT))
    front = await serve(GrpcPort(listen=LOOPBACK, tokens=tokens))

    def bearing(text: str) -> dict[str, Any]:
        return {"metadata": (("authorization", text),)}

    async with channel(front.address) as opened:
        for options in ({}, bearing("Bearer wrong"), bearing("Basic x")):
            code, reason, _ = await refusal(list_concepts(opened, **options))
            assert (code, reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
        assert await list_concepts(opened, **bearing("Bearer secret of reader"))
        code, reason, _ = await refusal(
            list_concepts(opened, **bearing("bearer secret of gateway"))
        )
        assert (code, reason) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
        remove = concept_pb2.DeleteConceptRequest(concept_id="bomb")
        call = concepts(opened).DeleteConcept(remove, **bearing("Bearer secret of reader"))
        assert (await refusal(call))[1] == "PERMISSION_DENIED"
        stub = health_pb2_grpc.HealthStub(opened)
        assert (await stub.Check(health_pb2.HealthCheckRequest())).status == SERVING


async def test_only_clients_with_a_certificate_get_in(
    serve: Any, authority: Any, tmp_path: Path
) -> None:
    certificate, key = authority.issue("localhost")
    tls = Tls(cert=certificate, key=key, client_ca=authority.file)
    peers = (Peer(identity="image-server", permissions=frozenset({Permission.AUDIT})),)
    front = await serve(GrpcPort(listen=LOOPBACK, tls=tls, peers=peers))
    stranger = type(authority)(tmp_path, "another authority")

    def credentials(issuer: Any, name: str) -> grpc.ChannelCredentials:
        own, own_key = issuer.issue(name)
        return grpc.ssl_channel_credentials(
            authority.file.read_bytes(), own_key.read_bytes(), own.read_bytes()
        )

    async with channel(front.address, credentials(authority, "console")) as opened:
        assert await list_concepts(opened)
    async with channel(front.address, credentials(authority, "image-server")) as opened:
        assert (await refusal(list_concepts(opened)))[1] == "PERMISSION_DENIED"
    nobody = grpc.ssl_channel_credentials(authority.file.read_bytes())
    for unknown in (nobody, credentials(stranger, "console2")):
        async with channel(front.address, unknown) as opened:
            code, _, _ = await refusal(list_concepts(opened))
            assert code is grpc.StatusCode.UNAVAILABLE
    async with channel(front.address) as opened:
        code, _, _ = await refusal(list_concepts(opened))
        assert code is grpc.StatusCode.UNAVAILABLE


FRONT = "spiffe://cluster.local/ns/web/sa/front"


@pytest.mark.parametrize(
    ("name", "names", "expected"),
    [
        ("front", [x509.UniformResourceIdentifier(FRONT)], None),
        (FRONT, [], "UNAUTHENTICATED"),
        (FRONT.upper(), [], "UNAUTHENTICATED"),
        (
            "twice",
            [x509.UniformResourceIdentifier(FRONT), x509.UniformResourceIdentifier(f"{FRONT}2")],
            "UNAUTHENTICATED",
        ),
        (FRONT, [x509.DNSName("other")], "PERMISSION_DENIED"),
        ("plain", [], "PERMISSION_DENIED"),
    ],
)
async def test_only_the_spiffe_id_of_a_certificate_is_one(
    serve: Any, authority: Any, name: str, names: list[x509.GeneralName], expected: str | None
) -> None:
    certificate, key = authority.issue("localhost")
    tls = Tls(cert=certificate, key=key, client_ca=authority.file)
    peers = (Peer(identity=FRONT, permissions=frozenset({Permission.READ, Permission.CONCEPTS})),)
    front = await serve(GrpcPort(listen=LOOPBACK, tls=tls, peers=peers))
    own, own_key = authority.issue(name, names)
    credentials = grpc.ssl_channel_credentials(
        authority.file.read_bytes(), own_key.read_bytes(), own.read_bytes()
    )
    remove = concept_pb2.DeleteConceptRequest(concept_id="unheard-of")
    async with channel(front.address, credentials) as opened:
        call = concepts(opened).DeleteConcept(remove)
        assert (await refusal(call))[1] == (expected or "CONCEPT_UNKNOWN")


async def test_a_renewed_certificate_is_used_for_new_connections(
    serve: Any, authority: Any, tmp_path: Path
) -> None:
    certificate, key = authority.issue("localhost")
    front = await serve(GrpcPort(listen=LOOPBACK, tls=Tls(cert=certificate, key=key)))

    async def reached(root: Path) -> bool:
        async with channel(
            front.address, grpc.ssl_channel_credentials(root.read_bytes())
        ) as opened:
            try:
                await list_concepts(opened)
            except grpc.aio.AioRpcError:
                return False
            return True

    assert await reached(authority.file)
    certificate.write_text("half a certif")
    assert await reached(authority.file)
    successor = type(authority)(tmp_path, "next authority")
    successor.issue("localhost")
    assert await reached(successor.file)
    assert not await reached(authority.file)


async def test_a_certificate_that_cannot_be_read_stops_the_start(
    serve: Any, tmp_path: Path
) -> None:
    missing = Tls(cert=tmp_path / "none.crt", key=tmp_path / "none.key")
    with pytest.raises(ValueError, match=r"none\.crt: No such file"):
        await serve(GrpcPort(listen=LOOPBACK, tls=missing))
