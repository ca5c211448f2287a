"""A gRPC front with a checkpoint, reached over a real port as Envoy reaches it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from loragate_server.config.listen import GrpcPort, Listen
from loragate_server.gate.library import LibraryKeeper
from loragate_server.rpc.envoy import ext_authz_pb2 as authz
from loragate_server.rpc.envoy import ext_proc_pb2 as proc
from loragate_server.rpc.observer import CallObserver
from loragate_server.rpc.server import RpcServer
from testkit.libraries import embedded_library
from tests.server.checkpoint.conftest import MakePost, Post, post
from tests.server.gate.conftest import files, house, tiny, until

__all__ = ["files", "front", "house", "post", "tiny", "until"]

GOLDEN = Path(__file__).parent / "golden"
"""Requests as bytes, made with the messages that Envoy publishes; `make.py` there says how."""

CHECK = "/envoy.service.auth.v3.Authorization/Check"
PROCESS = "/envoy.service.ext_proc.v3.ExternalProcessor/Process"


@dataclass
class Front:
    """A front that runs, and a channel to it."""

    post: Post
    server: RpcServer
    channel: grpc.aio.Channel

    async def check(
        self, request: bytes | str, metadata: Sequence[tuple[str, str]] = (), timeout_s: float = 20
    ) -> authz.CheckResponse:
        """Sends bytes, or the golden request of this name."""
        call = self.channel.unary_unary(CHECK, response_deserializer=authz.CheckResponse.FromString)
        sent = request if isinstance(request, bytes) else golden(request)
        return await call(sent, metadata=metadata, timeout=timeout_s)

    async def process(
        self, *messages: bytes | str, metadata: Sequence[tuple[str, str]] = ()
    ) -> list[proc.ProcessingResponse]:
        """The answers to a stream, one per message until the server ends it."""
        method = self.channel.stream_stream(
            PROCESS, response_deserializer=proc.ProcessingResponse.FromString
        )
        call, answers = method(metadata=metadata), []
        for one in messages:
            await call.write(one if isinstance(one, bytes) else golden(one))
            answer = await call.read()
            if answer == grpc.aio.EOF:
                break
            answers.append(answer)
            if answer.WhichOneof("response") == "immediate_response":
                break
        await call.done_writing()
        assert await call.read() == grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK
        return answers


def golden(name: str) -> bytes:
    return (GOLDEN / f"{name}.binpb").read_bytes()


MakeFront = Callable[..., Awaitable[Front]]


@pytest.fixture
async def front(post: MakePost) -> AsyncIterator[MakeFront]:
    async with AsyncExitStack() as stack:

        async def make(port: GrpcPort | None = None, **settings: Any) -> Front:
            one = post(**settings)
            one.house.reference(0)
            gate = one.house.gate
            library = embedded_library()
            keeper = LibraryKeeper(
                library, gate.bases, gate.worker, lambda *_: pytest.fail("built")
            )
            chosen = port or GrpcPort(listen=Listen(grpc="127.0.0.1:0"))
            server = RpcServer(
                chosen, gate, keeper, one.house.recorder, CallObserver(), one.checkpoint
            )
            stack.push_async_callback(server.stop)
            channel = grpc.aio.insecure_channel(await server.start())
            stack.push_async_callback(channel.close)
            return Front(one, server, channel)

        yield make
