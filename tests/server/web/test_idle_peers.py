"""Peers of the HTTP port that connect and say nothing, little, or never listen."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress

import aiohttp
import pytest

from loragate_server.metrics.metrics import Metrics
from loragate_server.web.readiness import Readiness
from loragate_server.web.server import WebServer

Start = Callable[..., Awaitable[str]]
HALF = b"GET /healthz HTTP/1.1\r\nHost: a\r\n"
WHOLE = HALF + b"\r\n"


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    async with AsyncExitStack() as stack:

        async def make(registry: object = None, **settings: float) -> str:
            found = registry or Metrics().registry
            server = WebServer("127.0.0.1:0", found, Readiness([]), **settings)  # type: ignore[arg-type]
            stack.push_async_callback(server.close)
            return await server.start()

        yield make


async def connect(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = address.rpartition(":")
    return await asyncio.open_connection(host, int(port))


async def ended(reader: asyncio.StreamReader, within_s: float = 10.0) -> bool:
    """Whether the server has ended a connection."""
    try:
        async with asyncio.timeout(within_s):
            while await reader.read(1 << 16):
                pass
    except TimeoutError:
        return False
    except ConnectionError:
        pass
    return True


async def alive(address: str) -> bool:
    async with aiohttp.ClientSession() as session, session.get(f"http://{address}/healthz") as told:
        return bool((await told.json())["alive"])


@pytest.mark.parametrize("sent", [b"", HALF])
async def test_a_crowd_of_half_open_connections_keeps_nobody_out(start: Start, sent: bytes) -> None:
    address = await start(max_connections=20)
    crowd = []
    for _ in range(60):
        reader, writer = await connect(address)
        writer.write(sent)
        crowd.append((reader, writer))
    assert await alive(address)
    assert await alive(address)
    gone = [await ended(reader, 0.05) for reader, _ in crowd]
    assert sum(gone) >= 40
    for _, writer in crowd:
        writer.close()


@pytest.mark.parametrize("sent", [b"", HALF])
async def test_a_header_that_never_comes_ends_the_connection(start: Start, sent: bytes) -> None:
    address = await start(idle_s=0.2)
    reader, writer = await connect(address)
    writer.write(sent)
    assert await ended(reader)
    writer.close()


async def test_a_header_that_drips_ends_the_connection(start: Start) -> None:
    address = await start(idle_s=0.5)
    reader, writer = await connect(address)

    async def drip() -> None:
        for byte in HALF + b"X-A: b\r\n" * 1000:
            writer.write(bytes([byte]))
            await asyncio.sleep(0.05)

    dripping = asyncio.ensure_future(drip())
    assert await ended(reader)
    dripping.cancel()
    with suppress(asyncio.CancelledError, ConnectionError):
        await dripping
    writer.close()


async def test_a_body_that_never_comes_is_answered_with_408(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loragate_server.web.server.ANSWER_WITHIN_S", 0.2)
    console = aiohttp.web.Application()

    async def form(request: aiohttp.web.Request) -> aiohttp.web.Response:
        return aiohttp.web.json_response({"fields": len(await request.post())})

    console.router.add_post("/form", form)
    one = WebServer("127.0.0.1:0", Metrics().registry, Readiness([]))
    one.mount(console)
    address = await one.start()
    try:
        reader, writer = await connect(address)
        writer.write(
            b"POST /console/form HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n"
            b"Content-Type: application/x-www-form-urlencoded\r\n\r\na=b"
        )
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
    finally:
        await one.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408")
    assert json.loads(body)["error"]["code"] == "too_slow"


async def test_a_peer_that_reads_no_answer_is_cut_off(start: Start) -> None:
    metrics = Metrics()
    address = await start(metrics.registry, idle_s=0.5)
    reader, writer = await connect(address)
    # Answers in flight fill the buffers of both sides, and then the server's writing stops.
    reader._transport.pause_reading()  # type: ignore[attr-defined]
    request = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"

    async def ask_on() -> None:
        while True:
            writer.write(request * 20)
            await writer.drain()
            await asyncio.sleep(0.01)

    with pytest.raises((ConnectionError, TimeoutError)):
        await asyncio.wait_for(ask_on(), 20)
    assert writer.transport.is_closing()
    assert await alive(address)


async def test_a_connection_that_asks_now_and_then_is_kept(start: Start) -> None:
    address = await start(idle_s=1.0, max_connections=2)
    reader, writer = await connect(address)
    for _ in range(4):
        writer.write(WHOLE)
        assert b"200 OK" in await asyncio.wait_for(reader.readuntil(b"}"), 5)
        await asyncio.sleep(0.4)
    writer.close()
