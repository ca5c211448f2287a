"""A server that takes whatever comes, and what a proxy must let through to it and what not."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent import futures
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from aiohttp import web
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from testkit.waiting import eventually
from tests.e2e.proxy_stack import FORBIDDEN, HARMLESS, MIB, Stack, free_ports, running_stack

FEATURES = json.dumps({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
GRAPH = {"prompt": {"1": {"class_type": "EmptyLatentImage", "inputs": {"width": 64}}}}


@dataclass
class OpenServer:
    """What reached it, as lines."""

    came: list[str] = field(default_factory=list)
    pieces: list[bytes] = field(default_factory=list)
    """What it answers in a WebSocket, beside an echo."""
    streamed: list[bytes] = field(default_factory=list)
    """Messages in streams of gRPC."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Opens a WebSocket where one is asked for, and says yes to everything else."""
        if request.headers.get("Upgrade", "").lower() == "websocket":
            self.came.append(f"opened {request.path}")
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            await socket.send_json({"type": "status", "data": {"sid": "1"}})
            async for message in socket:
                self.came.append(f"said {message.data}")
                await socket.send_str(f"heard {message.data}")
                for piece in self.pieces:
                    await socket.send_bytes(piece)
            return socket
        body = await request.read()
        self.came.append(f"{request.method} {request.rel_url.raw_path}")
        return await self.reply(request, body)

    async def reply(self, request: web.Request, body: bytes) -> web.StreamResponse:
        """The answer to a request that is no upgrade."""
        return web.json_response({"prompt_id": "1"})

    def echo(self, requests: Iterator[bytes], _: grpc.ServicerContext) -> Iterator[bytes]:
        """What came, kept and sent back."""
        for one in requests:
            self.streamed.append(one)
            yield one

    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        """A method of any name."""
        self.came.append(call.method)
        if call.method.endswith("StreamInfer"):
            return grpc.stream_stream_rpc_method_handler(self.echo)
        return grpc.unary_unary_rpc_method_handler(lambda request, _: request)


@contextmanager
def open_server(port: int, grpc_port: int, server: OpenServer) -> Iterator[OpenServer]:
    """The server on both ports, in threads."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    app = web.Application(client_max_size=128 * MIB)
    app.router.add_route("*", "/{rest:.*}", server.answer)
    runner = web.AppRunner(app, shutdown_timeout=1)

    async def start() -> None:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()

    class Methods(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
            return server.service(call)

    calls = grpc.server(futures.ThreadPoolExecutor(4), handlers=(Methods(),))
    calls.add_insecure_port(f"127.0.0.1:{grpc_port}")
    asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    calls.start()
    try:
        yield server
    finally:
        calls.stop(None).wait(5)
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@contextmanager
def guarded(
    extractor: str, *command: str, server: OpenServer | None = None
) -> Iterator[tuple[Stack, OpenServer]]:
    """The server behind a proxy from `examples/`, its requests read as those of an image server.

    A check may take longer than the shipped configurations grant, as it does on a busy machine.
    """
    own_server = server or OpenServer()
    port, grpc_port = free_ports(2)
    ports = {"IMAGE_SERVER_PORT": str(port), "IMAGE_SERVER_GRPC_PORT": str(grpc_port)}
    own = {
        "LORAGATE": "own",
        "IMAGE_SERVER": "own",
        "EXTRACTOR": extractor,
        "CHECK_TIMEOUT_S": "50",
    }
    with (
        open_server(port, grpc_port, own_server),
        running_stack(*command, **own, **ports) as stack,
    ):
        yield stack, own_server


def opened(stack: Stack, path: str, talk: Callable[[Any], Awaitable[None]] | None = None) -> int:
    """The status of opening a WebSocket, which talks where it opens."""

    async def open_it() -> int:
        url = f"ws://127.0.0.1:{stack.ports['PROXY_PORT']}{path}"
        async with aiohttp.ClientSession() as session:
            try:
                async with session.ws_connect(url, timeout=aiohttp.ClientWSTimeout(5)) as socket:
                    if talk:
                        await talk(socket)
                    return 101
            except aiohttp.WSServerHandshakeError as error:
                return error.status

    return asyncio.run(asyncio.wait_for(open_it(), 15))


Guarded = tuple[Stack, OpenServer]


class GuardedComfyUI:
    """What holds for ComfyUI whichever proxy stands in front."""

    def test_the_websocket_that_every_page_needs_opens_and_tells_of_progress(
        self, comfyui: Guarded
    ) -> None:
        stack, server = comfyui

        async def talk(socket: Any) -> None:
            told = await socket.receive(timeout=5)
            assert json.loads(told.data)["type"] == "status"
            await socket.send_str(FEATURES)
            assert (await socket.receive(timeout=5)).data == f"heard {FEATURES}"

        for path in ("/ws?clientId=1", "/api/ws?clientId=1"):
            assert opened(stack, path, talk) == 101
        assert server.came[:1] == ["opened /ws"]

    def test_every_other_upgrade_is_refused_before_the_server_sees_it(
        self, comfyui: Guarded
    ) -> None:
        stack, server = comfyui
        server.came.clear()
        for path in ("/v1/realtime/video", "/queue/join", "/wsx", "/x/ws", "/crystools/ws"):
            assert opened(stack, path) == 403, path
        answer = stack.ask("GET", "/ws", headers={"Connection": "Upgrade", "Upgrade": "websocket"})
        assert answer.status in (400, 403)
        other = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAM"}
        assert stack.ask("GET", "/system_stats", headers=other).status in (200, 403)
        assert [one for one in server.came if one != "GET /system_stats"] == []

    def test_what_a_page_does_passes_and_what_nobody_knows_does_not(self, comfyui: Guarded) -> None:
        stack, server = comfyui
        server.came.clear()
        passing = [
            ("GET", "/"),
            ("GET", "/object_info"),
            ("POST", "/api/queue"),
            ("POST", "/interrupt"),
            ("POST", "/upload/image"),
            ("POST", "/api/userdata/workflows%2Fharbour.json"),
            ("GET", "/api/userdata/workflows%2Fharbour.json"),
        ]
        for method, path in passing:
            body = {} if method == "POST" else None
            assert stack.ask(method, path, body).status == 200, path
        assert stack.ask("POST", "/prompt", GRAPH).status == 200
        assert stack.ask("DELETE", "/api/userdata/harbour.json").status == 200
        assert len(server.came) == len(passing) + 2
        server.came.clear()
        for path in ("/deforum_api/batches", "/customnode/install", "/api/v2/x", "/prompt/x"):
            answer = stack.ask("POST", path, {"workflow": {}})
            assert answer.status == 403
            assert b"route_unlisted" in answer.body
        assert server.came == []

    def test_a_picture_of_twenty_mebibytes_passes(self, comfyui: Guarded) -> None:
        stack, server = comfyui
        server.came.clear()
        picture = base64.b64encode(bytes(range(256)) * (15 * MIB // 256)).decode()
        graph = {"1": {"class_type": "ETN_LoadImageBase64", "inputs": {"image": picture}}}
        assert len(picture) == 20 * MIB
        assert stack.ask("POST", "/prompt", {"prompt": graph}).status == 200
        assert server.came == ["POST /prompt"]

    def test_a_body_over_the_limit_is_refused_before_the_server_sees_it(
        self, comfyui: Guarded
    ) -> None:
        stack, server = comfyui
        server.came.clear()
        assert status_of_large(stack, "/prompt", 33 * MIB) == 413
        assert server.came == []


class GuardedRealtime:
    """What holds for vLLM-Omni's videos over a WebSocket, whichever proxy stands in front."""

    def test_a_start_with_a_harmless_adapter_reaches_the_server(self, realtime: Guarded) -> None:
        stack, server = realtime
        server.came.clear()
        with video(stack) as socket:
            socket.send(start(HARMLESS))
            heard = json.loads(str(socket.recv(timeout=30)).removeprefix("heard "))
            loaded = Path(heard["lora"]["local_path"])
            assert loaded.read_bytes() == HARMLESS.read_bytes()
            socket.send(json.dumps({"type": "session.stop"}))
            assert socket.recv(timeout=10) == 'heard {"type": "session.stop"}'
        assert len(server.came) == 3

    def test_a_start_with_a_forbidden_adapter_does_not(self, realtime: Guarded) -> None:
        stack, server = realtime
        server.came.clear()
        evil = start(FORBIDDEN)
        harmless = json.dumps({"type": "session.start", "prompt": "a boat"})
        ways: list[list[Any]] = [
            [evil],
            [[evil[:20], evil[20:40], evil[40:]]],
            [evil.encode()],
            [harmless, evil, json.dumps({"type": "session.ping"})],
        ]
        for messages in ways:
            with video(stack) as socket, pytest.raises(ConnectionClosed) as caught:
                say(socket, messages)
            assert caught.value.rcvd is not None
            assert caught.value.rcvd.code == 1008
            if messages == [evil]:
                assert re.match(
                    r"adapter_block decision \S+: loragate: BLOCK", caught.value.rcvd.reason
                )

        def said() -> list[str]:
            return [one for one in server.came if one.startswith("said ")]

        # The server may hear of what was sent on after its sender has heard of the end.
        assert eventually(lambda: len(said()) > 0, 10)
        assert said() == [f"said {harmless}"]

    def test_video_in_large_pieces_comes_through(self, realtime: Guarded) -> None:
        stack, server = realtime
        server.pieces = [bytes([number]) * (3 * MIB) for number in range(3)]
        with video(stack) as socket:
            socket.send(json.dumps({"type": "session.start", "prompt": "a boat"}))
            got = [socket.recv(timeout=20) for _ in range(4)]
        server.pieces = []
        assert [len(one) for one in got[1:]] == [3 * MIB] * 3


def say(socket: ClientConnection, messages: Sequence[Any]) -> None:
    """Sends all and hears one answer more than that, unless it is closed before."""
    for one in messages:
        socket.send(one)
    for _ in range(len(messages) + 1):
        socket.recv(timeout=30)


def start(path: Path) -> str:
    """What starts a video with an adapter."""
    lora = {"name": "style", "local_path": str(path)}
    return json.dumps({"type": "session.start", "prompt": "a boat", "lora": lora})


@contextmanager
def video(stack: Stack) -> Iterator[ClientConnection]:
    """The WebSocket of a video, greeted by the server."""
    url = f"ws://127.0.0.1:{stack.ports['PROXY_PORT']}/v1/realtime/video"
    with connect(url, proxy=None, max_size=None, close_timeout=5) as socket:
        assert json.loads(socket.recv(timeout=10))["type"] == "status"
        yield socket


def status_of_large(stack: Stack, path: str, size: int) -> int:
    """The status for a body of so many bytes, read while it is sent: who refuses may not wait."""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", stack.ports["PROXY_PORT"]), 30) as connection:
        connection.sendall(f"{head}Content-Length: {size}\r\n\r\n".encode())

        def send() -> None:
            with suppress(OSError):  # the answer has come, and the connection is closed
                for _ in range(size // MIB):
                    connection.sendall(b" " * MIB)

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        line = connection.makefile("rb").readline().decode()
        with suppress(OSError):  # who refused may have closed the connection already
            connection.shutdown(socket.SHUT_RDWR)
        sender.join(10)
    return int(line.split()[1])
