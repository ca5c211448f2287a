"""A relay over a checkpoint made of the real rooms, and a WebSocket server behind it."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.http11 import Response
from websockets.typing import Subprotocol

from loragate_server.app.doors import open_relays
from loragate_server.config.schema import Config
from loragate_server.metrics.metrics import Metrics
from tests.server.checkpoint.conftest import MakePost, Post, post
from tests.server.gate.conftest import files, house, tiny, until
from tests.server.intercept.bodies import SETTINGS, extractor

__all__ = ["files", "house", "post", "tiny", "until"]

REALTIME = "/v1/realtime/video"


@dataclass
class Upstream:
    """An image server that says yes to everything, and what reached it."""

    port: int = 0
    heard: list[str | bytes] = field(default_factory=list)
    opened: list[dict[str, str]] = field(default_factory=list)
    ended: list[tuple[int | None, str | None]] = field(default_factory=list)
    connections: list[ServerConnection] = field(default_factory=list)
    status: int = 101

    async def serve(self, client: ServerConnection) -> None:
        assert client.request is not None
        self.opened.append({":path": client.request.path, **dict(client.request.headers.items())})
        self.connections.append(client)
        try:
            async for said in client:
                self.heard.append(said)
                await client.send(said)
        except ConnectionClosed:
            pass
        self.ended.append((client.close_code, client.close_reason))

    def process(self, client: ServerConnection, _: object) -> Response | None:
        return None if self.status == 101 else client.respond(self.status, "no")

    def choose(self, _: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
        return offered[-1] if offered else None


@dataclass
class Site:
    """A relay, and what stands around it."""

    post: Post
    metrics: Metrics
    upstream: Upstream
    port: int
    close: Callable[[], Awaitable[None]]

    @asynccontextmanager
    async def opened(self, path: str = REALTIME, **more: Any) -> AsyncIterator[ClientConnection]:
        url = f"ws://127.0.0.1:{self.port}{path}"
        async with connect(url, proxy=None, close_timeout=2, max_size=None, **more) as client:
            yield client

    async def refusal(self, path: str = REALTIME, **more: Any) -> tuple[int, dict[str, Any]]:
        """Status and body of an opening that does not open."""
        with pytest.raises(InvalidStatus) as caught:
            async with self.opened(path, **more):
                pass
        answer = caught.value.response
        return answer.status_code, json.loads(answer.body or b"{}")

    def start(self, seed: int = 0, **more: Any) -> str:
        """What starts a video with an adapter."""
        self.post.house.reference(seed)
        path = str(self.post.house.root / f"{seed}.safetensors")
        lora = {"name": "style", "local_path": path}
        return json.dumps({"type": "session.start", "prompt": "a boat", "lora": lora, **more})

    def forbid(self) -> None:
        """From now on the audit finds what it looks for."""
        self.post.house.engine.score = 9.0

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    def ended(self, cause: str, extractor: str = "vllm_omni") -> float:
        return self.count("loragate_relay_ended_total", extractor=extractor, cause=cause)


MakeSite = Callable[..., Awaitable[Site]]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


async def ending(client: ClientConnection) -> tuple[int, str]:
    """By what code, and in which words, a connection ends; messages before are passed over."""
    async with asyncio.timeout(20):
        await client.wait_closed()
    return client.close_code or 0, client.close_reason or ""


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    one = Upstream()
    async with serve(
        one.serve,
        "127.0.0.1",
        0,
        process_request=one.process,
        select_subprotocol=one.choose,
        max_size=None,
    ) as server:
        one.port = server.sockets[0].getsockname()[1]
        yield one


@pytest.fixture
async def site(post: MakePost, upstream: Upstream) -> AsyncIterator[MakeSite]:
    async with AsyncExitStack() as stack:

        async def make(
            kind: str = "vllm_omni",
            *,
            relay: dict[str, Any] | None = None,
            intercept: dict[str, Any] | None = None,
            root: Path | None = None,
            settings: dict[str, Any] | None = None,
            **config: Any,
        ) -> Site:
            own = {**SETTINGS[kind], **(settings or {})}
            port = free_port()
            entry = {
                "listen": f"127.0.0.1:{port}",
                "upstream": f"http://127.0.0.1:{upstream.port}",
                **(relay or {}),
            }
            section = {
                "extractors": {kind: {"kind": kind, "settings": own}},
                "relays": {kind: entry},
                **(intercept or {}),
            }
            one, metrics = post(root), Metrics()
            wanted = Config(intercept=section, **config)
            one.checkpoint.settings = wanted.intercept
            one.checkpoint._extractors = {kind: extractor(kind, **own)}
            one.checkpoint._observer = metrics
            metrics.follow_extractors([kind])
            metrics.follow_relays([kind])
            inner = await stack.enter_async_context(AsyncExitStack())
            await open_relays(wanted, one.checkpoint, metrics, inner)
            return Site(one, metrics, upstream, port, inner.aclose)

        yield make
