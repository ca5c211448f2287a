"""Whatever is asked, its answer is the end of it: nothing waits for the collector of garbage.

What does holds the weights of an adapter in memory until the collector comes, and makes it come
often: once a fifth of a second, every few seconds, in the middle of other calls.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

from loragate.v1 import audit_pb2, audit_pb2_grpc
from loragate_server.config.listen import GrpcPort, Listen
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.gate.library import LibraryKeeper
from loragate_server.progress import Leash
from loragate_server.rpc.observer import CallObserver
from loragate_server.rpc.server import RpcServer
from loragate_server.rpc.unread import INLINE_BYTES_KEY
from testkit.garbage import left_by
from testkit.libraries import embedded_library
from tests.server.checkpoint.conftest import post
from tests.server.gate.conftest import House, files, house, tiny, until
from tests.server.rpc.front import Front, MakeFront, front

__all__ = ["files", "front", "house", "post", "tiny", "until"]


@dataclass
class Asking:
    """A front that runs, and one who asks it; one place in the queue."""

    here: House
    stub: Any
    numbers: Any = field(default_factory=itertools.count)

    def request(self, seed: int) -> audit_pb2.AuditRequest:
        reference = audit_pb2.AdapterReference(inline_bytes=self.here.files(seed))
        return audit_pb2.AuditRequest(adapters=[reference])

    async def refused(self, request: Any, code: grpc.StatusCode, **more: Any) -> None:
        assert await self.stub.Audit(request, timeout=20, **more).code() is code

    async def new(self) -> None:
        await self.stub.Audit(self.request(next(self.numbers)), timeout=20)

    async def known(self) -> None:
        await self.stub.Audit(self.request(0), timeout=20)

    async def watched(self) -> None:
        asked = audit_pb2.WatchAuditRequest(audit=self.request(next(self.numbers)))
        assert [one async for one in self.stub.WatchAudit(asked, timeout=20)]

    async def upload(self, data: bytes) -> grpc.StatusCode:
        async def parts() -> AsyncIterator[audit_pb2.AuditUploadRequest]:
            digest = hashlib.sha256(data).hexdigest()
            header = audit_pb2.UploadHeader(declared_size_bytes=len(data), sha256=digest)
            yield audit_pb2.AuditUploadRequest(header=header)
            yield audit_pb2.AuditUploadRequest(chunk=data)

        code: grpc.StatusCode = await self.stub.AuditUpload(parts(), timeout=20).code()
        return code

    async def uploaded(self) -> None:
        data = self.here.files(next(self.numbers))
        assert await self.upload(data) is grpc.StatusCode.OK

    async def broken(self) -> None:
        reference = audit_pb2.AdapterReference(inline_bytes=b"no adapter")
        request = audit_pb2.AuditRequest(adapters=[reference])
        await self.refused(request, grpc.StatusCode.INVALID_ARGUMENT)

    async def pointless(self) -> None:
        await self.refused(audit_pb2.AuditRequest(), grpc.StatusCode.INVALID_ARGUMENT)

    async def garbled(self) -> None:
        metadata = ((INLINE_BYTES_KEY, "many"),)
        code = grpc.StatusCode.INVALID_ARGUMENT
        await self.refused(self.request(0), code, metadata=metadata)

    async def failing(self) -> None:
        self.here.engine.error = RuntimeError("broken")
        await self.refused(self.request(next(self.numbers)), grpc.StatusCode.INTERNAL)
        self.here.engine.error = None

    async def refused_later(self) -> None:
        self.here.engine.error = NoDecisionError(
            ErrorReason.ADAPTER_METADATA_INVALID, "It is odd.", remedy="Mend it."
        )
        await self.refused(self.request(next(self.numbers)), grpc.StatusCode.INVALID_ARGUMENT)
        self.here.engine.error = None

    async def late(self) -> None:
        self.here.engine.hold()
        call = self.stub.Audit(self.request(next(self.numbers)), timeout=0.1)
        assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await self.ended()

    async def gone(self) -> None:
        self.here.engine.hold()
        call = self.stub.Audit(self.request(next(self.numbers)), timeout=20)
        await self.here.engine.has_started()
        call.cancel()
        await self.ended()

    async def ended(self) -> None:
        """Waits until nothing is at work any more."""
        while self.here.engine.ended < self.here.engine.audits or self.here.gate.worker.depth:
            await asyncio.sleep(0.001)
        self.here.engine.let_go()

    async def unrecorded(self) -> None:
        record = self.here.recorder.record

        def fails(*_: Any, **__: Any) -> None:
            raise NoDecisionError(ErrorReason.DISK_FULL, "It is full.", remedy="Make room.")

        self.here.recorder.record = fails  # type: ignore[method-assign, assignment]
        code = grpc.StatusCode.RESOURCE_EXHAUSTED
        await self.refused(self.request(next(self.numbers)), code)
        self.here.recorder.record = record  # type: ignore[method-assign]

    async def other_upload(self) -> None:
        assert await self.upload(b"no adapter") is grpc.StatusCode.INVALID_ARGUMENT

    async def listed(self) -> None:
        await self.stub.ListAudits(audit_pb2.ListAuditsRequest(), timeout=20)

    async def unknown(self) -> None:
        asked = audit_pb2.GetAuditRequest(decision_id="none")
        assert await self.stub.GetAudit(asked, timeout=20).code() is grpc.StatusCode.NOT_FOUND


@pytest.fixture
async def asking(house: Callable[..., House]) -> AsyncIterator[Asking]:
    here = house(queue_limit=1)
    library = embedded_library()
    keeper = LibraryKeeper(
        library, here.gate.bases, here.gate.worker, lambda *_: pytest.fail("built")
    )
    port = GrpcPort(listen=Listen(grpc="127.0.0.1:0"))
    async with AsyncExitStack() as stack:
        server = RpcServer(port, here.gate, keeper, here.recorder, CallObserver())
        stack.push_async_callback(server.stop)
        channel = grpc.aio.insecure_channel(await server.start())
        stack.push_async_callback(channel.close)
        yield Asking(here, audit_pb2_grpc.AuditServiceStub(channel))  # type: ignore[no-untyped-call]


KINDS = (
    *("new", "known", "watched", "uploaded"),
    *("broken", "pointless", "garbled", "failing", "refused_later", "late", "gone", "unrecorded"),
    *("other_upload", "listed", "unknown"),
)


@pytest.mark.parametrize("kind", KINDS)
async def test_no_call_leaves_garbage(asking: Asking, kind: str) -> None:
    ask: Callable[[], Awaitable[None]] = getattr(asking, kind)
    assert await left_by(ask) == {}


async def test_no_call_that_finds_no_room_leaves_garbage(
    asking: Asking, until: Callable[..., Any]
) -> None:
    here = asking.here
    here.engine.hold()
    held = [here.ask(here.request(101))]
    await here.engine.has_started()
    held.append(here.ask(here.request(102)))
    await until(lambda: here.gate.worker.depth == 1)
    number = itertools.count(200)

    async def read() -> None:
        await asking.refused(asking.request(next(number)), grpc.StatusCode.RESOURCE_EXHAUSTED)

    async def unread() -> None:
        metadata, code = ((INLINE_BYTES_KEY, "9"),), grpc.StatusCode.RESOURCE_EXHAUSTED
        await asking.refused(asking.request(next(number)), code, metadata=metadata)

    assert await left_by(unread) == {}
    assert await left_by(read) == {}
    here.engine.let_go()
    for one in held:
        await one


PROXIES: dict[str, Callable[[Front], Awaitable[object]]] = {
    "checked": lambda one: one.check("load"),
    "without an adapter": lambda one: one.check("generate_without_adapter"),
    "refused": lambda one: one.check("load", [("x-loragate-extractor", "no-such")]),
    "late": lambda one: one.check("load", timeout_s=0.0001),
    "processed": lambda one: one.process("proc_headers", "proc_body"),
    "without a body": lambda one: one.process("proc_headers_get"),
    "broken off": lambda one: one.process("proc_headers_streamed"),
}


@pytest.mark.parametrize("kind", PROXIES)
async def test_no_call_of_a_proxy_leaves_garbage(front: MakeFront, kind: str) -> None:
    one = await front()

    async def ask() -> None:
        with suppress(grpc.aio.AioRpcError):
            await PROXIES[kind](one)

    assert await left_by(ask) == {}


async def test_what_holds_itself_is_found() -> None:
    async def ask() -> None:
        leash = Leash()
        leash.turn = leash.check

    assert await left_by(ask) == {"loragate_server.progress.Leash": 10, "Leash.check": 10}
