"""Calls that are opened and send nothing, or little: they keep nobody out, and end."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from loragate.v1 import audit_pb2, audit_pb2_grpc
from loragate_server.config.listen import GrpcPort, Listen
from loragate_server.gate.library import LibraryKeeper
from loragate_server.rpc.observer import CallObserver
from loragate_server.rpc.server import RpcServer
from testkit.libraries import embedded_library
from tests.server.gate.conftest import House, files, house, tiny, until

__all__ = ["files", "house", "tiny", "until"]

AUDIT = "/loragate.v1.AuditService/Audit"
UPLOAD = "/loragate.v1.AuditService/AuditUpload"
GIB = 1 << 30
Start = Callable[..., Awaitable[str]]


class Caller:
    """A connection of its own to the port."""

    def __init__(self, address: str, stack: AsyncExitStack, number: int = 0) -> None:
        self.channel = grpc.aio.insecure_channel(address, options=[("one", number)])
        stack.push_async_callback(self.channel.close)
        self.stub: Any = audit_pb2_grpc.AuditServiceStub(self.channel)  # type: ignore[no-untyped-call]

    def open(self, method: str = UPLOAD) -> Any:
        """A call to which nothing is sent."""
        return self.channel.stream_unary(method)()

    async def declare(self, size_bytes: int) -> Any:
        """An upload of which only the header is sent."""
        call = self.stub.AuditUpload()
        header = audit_pb2.UploadHeader(declared_size_bytes=size_bytes, sha256="0" * 64)
        await call.write(audit_pb2.AuditUploadRequest(header=header))
        return call

    async def health(self) -> int:
        stub: Any = health_pb2_grpc.HealthStub(self.channel)  # type: ignore[no-untyped-call]
        return int((await stub.Check(health_pb2.HealthCheckRequest(), timeout=10)).status)


@pytest.fixture
async def served(house: Callable[..., House]) -> AsyncIterator[tuple[Start, AsyncExitStack]]:
    async with AsyncExitStack() as stack:

        async def start(here: House, **listen: Any) -> str:
            library = embedded_library()
            keeper = LibraryKeeper(
                library, here.gate.bases, here.gate.worker, lambda *_: pytest.fail("built")
            )
            port = GrpcPort(listen=Listen(grpc="127.0.0.1:0", **listen))
            server = RpcServer(port, here.gate, keeper, here.recorder, CallObserver())
            stack.push_async_callback(server.stop)
            return await server.start()

        yield start, stack


def inline(here: House, seed: int) -> audit_pb2.AuditRequest:
    reference = audit_pb2.AdapterReference(inline_bytes=here.files(seed))
    return audit_pb2.AuditRequest(adapters=[reference])


async def refusal(call: Any) -> tuple[str, str]:
    """Reason and message."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    status = rpc_status.from_call(caught.value)
    assert status is not None, caught.value
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return info.reason, status.message


async def test_uploads_that_declare_much_and_send_nothing_take_no_bytes_away(
    house: Callable[..., House], served: tuple[Start, AsyncExitStack]
) -> None:
    start, stack = served
    here = house(byte_budget=4 * GIB)
    here.rule(f"{here.policy_file.read_text()}limits:\n  max_file_bytes: {2 * GIB}\n")
    caller = Caller(await start(here), stack)
    idle = [await caller.declare(2 * GIB) for _ in range(3)]
    await asyncio.sleep(0.2)
    assert here.counts.held_bytes[-1] == 0
    answer = await caller.stub.Audit(inline(here, 0), timeout=20)
    assert answer.verdict.decision_id
    for call in idle:
        call.cancel()


@pytest.mark.parametrize("method", [UPLOAD, AUDIT])
async def test_calls_without_a_message_keep_neither_audits_nor_health_checks_out(
    house: Callable[..., House],
    served: tuple[Start, AsyncExitStack],
    until: Callable[..., Any],
    method: str,
) -> None:
    start, stack = served
    here = house()
    address = await start(here, max_concurrent_calls=8, max_uploads_per_caller=100)
    crowd = Caller(address, stack, 1)
    calls = [crowd.open(method) for _ in range(40)]
    await asyncio.sleep(0.3)
    caller = Caller(address, stack, 2)
    assert await caller.health() == health_pb2.HealthCheckResponse.SERVING
    for seed in range(3):
        answer = await caller.stub.Audit(inline(here, seed), timeout=20)
        assert answer.verdict.decision_id
    await until(lambda: sum(call.done() for call in calls) >= 32)
    ended = [call for call in calls if call.done()]
    assert {(await refusal(call))[0] for call in ended} == {"QUEUE_FULL"}
    for call in calls:
        call.cancel()


async def test_health_watchers_keep_nobody_out(
    house: Callable[..., House], served: tuple[Start, AsyncExitStack]
) -> None:
    start, stack = served
    here = house()
    address = await start(here)
    crowd, caller = Caller(address, stack, 1), Caller(address, stack, 2)
    stub: Any = health_pb2_grpc.HealthStub(crowd.channel)  # type: ignore[no-untyped-call]
    watching = [stub.Watch(health_pb2.HealthCheckRequest()) for _ in range(600)]
    await asyncio.sleep(0.3)
    assert (await caller.stub.Audit(inline(here, 0), timeout=20)).verdict.decision_id
    assert await caller.health() == health_pb2.HealthCheckResponse.SERVING
    for call in watching:
        call.cancel()


@pytest.mark.parametrize("method", [UPLOAD, AUDIT])
async def test_a_call_whose_message_never_comes_is_given_up(
    house: Callable[..., House], served: tuple[Start, AsyncExitStack], method: str
) -> None:
    start, stack = served
    caller = Caller(await start(house(), idle_timeout_s=0.2), stack)
    reason, message = await refusal(caller.open(method))
    assert reason == "DEADLINE_EXCEEDED"
    assert "0.2 s" in message


async def test_an_upload_that_stops_in_the_middle_is_given_up_and_not_kept(
    house: Callable[..., House], served: tuple[Start, AsyncExitStack]
) -> None:
    start, stack = served
    here = house()
    caller = Caller(await start(here, idle_timeout_s=0.3), stack)
    call = await caller.declare(1000)
    await call.write(audit_pb2.AuditUploadRequest(chunk=b"x" * 10))
    assert (await refusal(call))[0] == "DEADLINE_EXCEEDED"
    assert here.counts.held_bytes[-1] == 0
    folder = here.gate._intake._intake.store_dir
    assert [path for path in folder.rglob("*") if path.is_file()] == []


async def test_an_upload_that_drips_is_given_up(
    house: Callable[..., House], served: tuple[Start, AsyncExitStack]
) -> None:
    start, stack = served
    here = house()
    caller = Caller(await start(here, upload_timeout_s=1.0), stack)
    call = await caller.declare(1000)
    began = time.monotonic()

    async def drip() -> None:
        while not call.done():
            await call.write(audit_pb2.AuditUploadRequest(chunk=b"x"))
            await asyncio.sleep(0.1)

    dripping = asyncio.ensure_future(drip())
    reason, message = await refusal(call)
    await asyncio.wait([dripping])
    dripping.exception()
    assert (reason, "not complete" in message) == ("DEADLINE_EXCEEDED", True)
    assert time.monotonic() - began < 20


async def test_one_caller_has_so_many_uploads_and_no_more(
    house: Callable[..., House], served: tuple[Start, AsyncExitStack]
) -> None:
    start, stack = served
    here = house()
    caller = Caller(await start(here, max_uploads_per_caller=2), stack)
    first, second = [await caller.declare(1000) for _ in range(2)]
    await asyncio.sleep(0.2)
    reason, message = await refusal(await caller.declare(1000))
    assert (reason, "2 uploads" in message) == ("QUEUE_FULL", True)
    first.cancel()
    content = here.files(0)
    header = audit_pb2.UploadHeader(
        declared_size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest()
    )
    parts = [audit_pb2.AuditUploadRequest(header=header)]
    parts += [audit_pb2.AuditUploadRequest(chunk=content)]
    async with asyncio.timeout(20):
        while True:  # until the server has heard that one was cancelled
            try:
                answer = await caller.stub.AuditUpload(iter(parts), timeout=20)
                break
            except grpc.aio.AioRpcError as error:
                if "2 uploads" not in (error.details() or ""):
                    raise
                await asyncio.sleep(0.02)
    assert answer.verdict.decision_id
    second.cancel()


async def test_a_call_that_ends_without_its_message_is_refused_in_words(
    house: Callable[..., House], served: tuple[Start, AsyncExitStack]
) -> None:
    start, stack = served
    caller = Caller(await start(house()), stack)
    call = caller.open(AUDIT)
    await call.done_writing()
    assert (await refusal(call))[0] == "REQUEST_INVALID"


async def test_calls_that_are_worked_on_are_never_sent_away_for_others(
    house: Callable[..., House], served: tuple[Start, AsyncExitStack]
) -> None:
    start, stack = served
    here = house()
    caller = Caller(await start(here, max_concurrent_calls=2), stack)
    here.engine.hold()
    working = [caller.stub.Audit(inline(here, seed), timeout=30) for seed in range(2)]
    await here.engine.has_started()
    await asyncio.sleep(0.3)
    reason, message = await refusal(caller.stub.Audit(inline(here, 2), timeout=10))
    assert (reason, "2 calls" in message) == ("QUEUE_FULL", True)
    here.engine.let_go()
    assert all([(await call).verdict.decision_id for call in working])


async def test_connections_that_never_speak_are_closed(
    house: Callable[..., House], served: tuple[Start, AsyncExitStack]
) -> None:
    start, _stack = served
    host, _, port = (await start(house(), idle_timeout_s=0.5)).rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    async with asyncio.timeout(15):
        while await reader.read(1 << 16):
            pass
    writer.close()
