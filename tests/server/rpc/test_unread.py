"""Audits without room are refused before their messages are read, whatever these would hold."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from loragate import AdapterReference, AsyncAuditClient
from loragate.v1 import audit_pb2, audit_pb2_grpc
from loragate_server.config.listen import MESSAGE_BYTES, GrpcPort, Listen, Permission, Token
from loragate_server.errors import ErrorReason
from loragate_server.gate.library import LibraryKeeper
from loragate_server.rpc.server import RpcServer
from loragate_server.rpc.unread import (
    INLINE_BYTES_KEY,
    MOST_REMEMBERED,
    REMEMBERED_S,
    RefusedLately,
)
from testkit.libraries import embedded_library
from tests.server.gate.conftest import House, files, house, tiny, until
from tests.server.rpc.conftest import Calls

__all__ = ["files", "house", "tiny", "until"]

AUDIT, WATCH = (f"/loragate.v1.AuditService/{name}" for name in ("Audit", "WatchAudit"))
GARBAGE = b"\xff" * 1000
KNOWN = 9
"""Seed of the file whose verdict is in the cache."""


@dataclass
class Crowded:
    """A front whose one place in the queue is taken, and a channel to it."""

    here: House
    server: RpcServer
    address: str
    channel: grpc.aio.Channel
    calls: Calls
    asked: list[asyncio.Task[Any]]

    def open(self, method: str, declared: str | None = None, *more: tuple[str, str]) -> Any:
        """A call to which nothing has been sent."""
        metadata = (*more, *(() if declared is None else ((INLINE_BYTES_KEY, declared),)))
        kind = self.channel.stream_stream if method == WATCH else self.channel.stream_unary
        return kind(method)(metadata=metadata, timeout=20)

    async def send(
        self, message: Any, declared: str | None = None, *more: tuple[str, str]
    ) -> audit_pb2.AuditResponse:
        """Sends a message, or bytes in its place."""
        raw = message if isinstance(message, bytes) else message.SerializeToString()
        metadata = (*more, *(() if declared is None else ((INLINE_BYTES_KEY, declared),)))
        call = self.channel.unary_unary(
            AUDIT, response_deserializer=audit_pb2.AuditResponse.FromString
        )
        return await call(raw, metadata=metadata, timeout=20)

    def inline(self, seed: int) -> audit_pb2.AuditRequest:
        reference = audit_pb2.AdapterReference(inline_bytes=self.here.files(seed))
        return audit_pb2.AuditRequest(adapters=[reference])

    def known(self) -> audit_pb2.AuditRequest:
        digest = hashlib.sha256(self.here.files(KNOWN)).hexdigest()
        reference = audit_pb2.AdapterReference(stored_sha256=digest)
        return audit_pb2.AuditRequest(adapters=[reference])

    @property
    def counted(self) -> int:
        return self.here.counts.failures[ErrorReason.QUEUE_FULL]

    async def disperse(self) -> None:
        """Lets the crowd have its answers."""
        self.here.engine.let_go()
        await asyncio.gather(*self.asked)


Crowd = Callable[..., Awaitable[Crowded]]


@pytest.fixture
async def crowd(house: Callable[..., House], until: Callable[..., Any]) -> AsyncIterator[Crowd]:
    async with AsyncExitStack() as stack:

        async def start(*tokens: Token) -> Crowded:
            here = house(queue_limit=1)
            keeper = LibraryKeeper(
                embedded_library(),
                here.gate.bases,
                here.gate.worker,
                lambda *_: pytest.fail("built"),
            )
            calls = Calls([])
            port = GrpcPort(listen=Listen(grpc="127.0.0.1:0"), tokens=tokens)
            server = RpcServer(port, here.gate, keeper, here.recorder, calls)
            stack.push_async_callback(server.stop)
            address = await server.start()
            channel = grpc.aio.insecure_channel(address)
            stack.push_async_callback(channel.close)
            await here.ask(here.inline(KNOWN))
            await here.engine.has_started()
            here.engine.hold()
            asked = [here.ask(here.inline(1))]
            await here.engine.has_started()
            asked.append(here.ask(here.inline(2)))
            await until(lambda: here.gate.worker.depth == 1)
            return Crowded(here, server, address, channel, calls, asked)

        yield start


def token(name: str, *permissions: Permission) -> Token:
    digest = hashlib.sha256(name.encode()).hexdigest()
    return Token(name=name, sha256=digest, permissions=frozenset(permissions))


def bearer(name: str) -> tuple[str, str]:
    return "authorization", f"Bearer {name}"


async def refusal(call: Any) -> tuple[str, error_details_pb2.ErrorInfo]:
    """Reason and details; the reason is the status where the service gave none."""
    # A stream of answers is read, and one answer is awaited.
    answer = call.read() if isinstance(call, grpc.aio.StreamStreamCall) else call
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await answer
    status, info = rpc_status.from_call(caught.value), error_details_pb2.ErrorInfo()
    if status is None:
        return caught.value.code().name, info
    assert status.details[0].Unpack(info)
    return info.reason, info


# What is declared


async def test_a_call_that_declares_bytes_is_refused_though_its_message_never_comes(
    crowd: Crowd,
) -> None:
    front = await crowd()
    assert (await refusal(front.open(AUDIT, "140000")))[0] == "QUEUE_FULL"
    assert (await refusal(front.open(WATCH, "140000")))[0] == "QUEUE_FULL"
    assert front.counted == 2
    assert front.calls.handled == [
        (AUDIT, "RESOURCE_EXHAUSTED"),
        (WATCH, "RESOURCE_EXHAUSTED"),
    ]


@pytest.mark.parametrize("message", [GARBAGE, b"\x00" * (MESSAGE_BYTES + 1)])
async def test_what_could_not_be_read_is_refused_for_want_of_room_where_it_is_declared(
    crowd: Crowd, message: bytes
) -> None:
    front = await crowd()
    assert (await refusal(front.send(message)))[0] != "QUEUE_FULL"
    assert front.counted == 0
    assert (await refusal(front.send(message, str(len(message)))))[0] == "QUEUE_FULL"
    assert front.counted == 1


async def test_the_refusal_is_the_one_that_a_message_would_have_got(crowd: Crowd) -> None:
    front = await crowd()
    told = []
    for declared in (None, "1000"):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await front.send(front.inline(3), declared)
        status = rpc_status.from_call(caught.value)
        assert status is not None
        retry = error_details_pb2.RetryInfo()
        assert status.details[1].Unpack(retry)
        assert retry.retry_delay.ToNanoseconds() > 0
        keys = {key for key, _ in caught.value.trailing_metadata() or ()}
        told.append((status.message, status.details[0], keys, caught.value.code()))
    assert told[0] == told[1]
    assert {"x-request-id", "grpc-status-details-bin"} <= told[0][2]


async def test_with_room_a_declaration_changes_nothing(crowd: Crowd) -> None:
    front = await crowd()
    await front.disperse()
    for seed, declared in enumerate(("1", "140000", "9" * 19, "0", None), 20):
        assert (await front.send(front.inline(seed), declared)).verdict.decision_id
    assert front.here.engine.audits == 8


@pytest.mark.parametrize("declared", ["", "-1", "1e3", "0x10", "1.0", "many", "9" * 20, "1 2"])
@pytest.mark.parametrize("method", [AUDIT, WATCH])
async def test_what_is_no_number_of_bytes_is_refused_by_name(
    crowd: Crowd, declared: str, method: str
) -> None:
    front = await crowd()
    await front.disperse()
    reason, info = await refusal(front.open(method, declared))
    assert reason == "REQUEST_INVALID"
    assert info.metadata["field"] == INLINE_BYTES_KEY
    assert "decimal digits" in info.metadata["remedy"]


async def test_a_number_of_bytes_that_is_sent_twice_is_refused(crowd: Crowd) -> None:
    front = await crowd()
    reason, info = await refusal(front.open(AUDIT, "0", (INLINE_BYTES_KEY, "5")))
    assert (reason, info.metadata["field"]) == ("REQUEST_INVALID", INLINE_BYTES_KEY)


async def test_whoever_declares_no_bytes_and_sends_some_gets_no_room(crowd: Crowd) -> None:
    front = await crowd()
    before = front.here.engine.audits
    for _ in range(3):
        assert (await refusal(front.send(front.inline(3), "0")))[0] == "QUEUE_FULL"
    assert (await refusal(front.send(GARBAGE, "0")))[0] != "QUEUE_FULL"
    assert front.here.engine.audits == before
    await front.disperse()
    assert front.here.engine.audits == 3


# What is known is answered


async def test_the_sdk_is_told_what_is_known_while_there_is_no_room(crowd: Crowd) -> None:
    front = await crowd()
    digest = hashlib.sha256(front.here.files(KNOWN)).hexdigest()
    async with AsyncAuditClient(front.address, on_unavailable="raise") as client:
        for _ in range(3):
            assert (await refusal(front.send(front.inline(3))))[0] == "QUEUE_FULL"
            known = AdapterReference(data=front.here.files(KNOWN))
            result = await client.audit_stored([known])
            assert (result.adapters[0].sha256, result.cached) == (digest, True)


async def test_whoever_declares_nothing_is_told_what_is_known_until_he_is_refused(
    crowd: Crowd,
) -> None:
    front = await crowd()
    for _ in range(3):
        assert (await front.send(front.known())).verdict.cached
    assert (await refusal(front.send(front.inline(3))))[0] == "QUEUE_FULL"
    assert (await front.send(front.known(), "0")).verdict.cached


# What is not declared


async def test_whoever_was_refused_a_moment_ago_is_not_read_again(crowd: Crowd) -> None:
    front = await crowd()
    assert (await refusal(front.send(front.inline(3))))[0] == "QUEUE_FULL"
    assert (await refusal(front.open(AUDIT)))[0] == "QUEUE_FULL"
    assert (await refusal(front.open(WATCH)))[0] == "QUEUE_FULL"
    assert (await refusal(front.send(GARBAGE)))[0] == "QUEUE_FULL"
    assert front.counted == 4


async def test_a_caller_is_not_judged_by_what_another_one_sent(crowd: Crowd) -> None:
    front = await crowd(token("one", Permission.AUDIT), token("two", Permission.AUDIT))
    one, two = bearer("one"), bearer("two")
    assert (await refusal(front.send(front.inline(3), None, one)))[0] == "QUEUE_FULL"
    assert (await refusal(front.open(AUDIT, None, one)))[0] == "QUEUE_FULL"
    assert (await front.send(front.known(), None, two)).verdict.cached


async def test_when_there_is_room_again_whoever_was_refused_is_heard(crowd: Crowd) -> None:
    front = await crowd()
    assert (await refusal(front.send(front.inline(3))))[0] == "QUEUE_FULL"
    assert (await refusal(front.send(front.inline(3))))[0] == "QUEUE_FULL"
    await front.disperse()
    for declared in (None, "1000"):
        assert (await front.send(front.inline(3), declared)).verdict.decision_id
    stub: Any = audit_pb2_grpc.AuditServiceStub(front.channel)  # type: ignore[no-untyped-call]
    watched = stub.WatchAudit(audit_pb2.WatchAuditRequest(audit=front.inline(4)), timeout=20)
    assert [one async for one in watched][-1].verdict.decision_id


def test_the_memory_of_who_was_refused_is_short_and_small() -> None:
    clock = [100.0]
    lately = RefusedLately(lambda: clock[0])
    lately.note("one")
    clock[0] += 0.99 * REMEMBERED_S
    assert "one" in lately
    assert "two" not in lately
    clock[0] += 0.02 * REMEMBERED_S
    assert ["one" in lately for _ in range(100)] == [False, *[True] * 99], "one message is read"
    clock[0] += 1.01 * REMEMBERED_S
    assert "one" not in lately, "that message was answered otherwise"
    assert len(lately) == 0
    assert "one" not in lately
    for number in range(3 * MOST_REMEMBERED):
        lately.note(f"host {number}")
        lately.note("always")
    assert len(lately) == MOST_REMEMBERED
    assert "always" in lately
    assert "host 0" not in lately


# Who may ask


async def test_a_stranger_is_turned_away_before_a_message_comes(crowd: Crowd) -> None:
    front = await crowd(token("one", Permission.AUDIT), token("reader", Permission.READ))
    for shown in ((), (bearer("nobody"),)):
        for declared in (None, "0", "140000", "many"):
            reason, _ = await refusal(front.open(AUDIT, declared, *shown))
            assert reason == "UNAUTHENTICATED"
    assert (await refusal(front.open(AUDIT, "1", bearer("reader"))))[0] == "PERMISSION_DENIED"
    assert (await refusal(front.send(GARBAGE)))[0] == "UNAUTHENTICATED"
    assert front.counted == 0
    assert (await refusal(front.open(AUDIT, "1", bearer("one"))))[0] == "QUEUE_FULL"


async def test_a_server_that_drains_says_so_before_a_message_comes(crowd: Crowd) -> None:
    front = await crowd()
    await front.server.announce_drain()
    front.server._doorkeeper.draining = True
    assert (await refusal(front.open(AUDIT, "140000")))[0] == "DRAINING"
    front.server._doorkeeper.draining = False


async def test_calls_that_are_refused_unread_hold_no_place(crowd: Crowd) -> None:
    front = await crowd()
    calls = [front.open(AUDIT, "140000") for _ in range(600)]
    found = await asyncio.gather(*(refusal(call) for call in calls))
    assert {reason for reason, _ in found} == {"QUEUE_FULL"}
    assert {info.metadata["queue_limit"] for _, info in found} == {"1"}
    assert (await front.send(front.known(), "0")).verdict.cached
