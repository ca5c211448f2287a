"""Attacks on the service itself, by one machine: `python -m benchmarks.attacks.service`.

While each attack lasts, a caller that does no harm asks a real server for its health, on both
ports, and for a verdict that is in the cache. What an attack does to it is what is measured.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import aiohttp
import grpc
import typer
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.report import quantile, write
from benchmarks.resilience.asking import Asker, asker, copy_of, token_settings
from benchmarks.resilience.load import QUICK, SLOW
from benchmarks.resilience.overload import FAIR, GREEDY, ONE_THREAD
from loragate.v1 import audit_pb2
from loragate_server.testing import ServerProcess, server_process

GIB = 1 << 30
UPLOAD = "/loragate.v1.AuditService/AuditUpload"
AUDIT = "/loragate.v1.AuditService/Audit"
HALF_A_REQUEST = b"GET /healthz HTTP/1.1\r\nHost: a\r\n"
TOKEN = (("authorization", f"Bearer {GREEDY}"),)
PROBE_WITHIN_S = 5.0

Attack = Callable[[ServerProcess], AbstractAsyncContextManager[None]]


@dataclass
class Seen:
    """What the harmless caller saw of one kind of question."""

    seconds: list[float] = field(default_factory=list)
    failed: int = 0

    def words(self) -> str:
        """p50, p99 and failures."""
        if not self.seconds:
            return f"none of {self.failed}"
        p50, p99 = statistics.median(self.seconds), quantile(self.seconds, 0.99)
        failed = f", {self.failed} failed" if self.failed else ""
        return f"{1000 * p50:.1f} / {1000 * p99:.1f} ms{failed}"


@asynccontextmanager
async def nothing(_: ServerProcess) -> AsyncIterator[None]:
    """No attack, to compare with."""
    yield


@asynccontextmanager
async def declared(server: ServerProcess) -> AsyncIterator[None]:
    """Two uploads that declare 2 GiB each and send nothing of it."""
    async with _channel(server) as channel:
        header = audit_pb2.UploadHeader(declared_size_bytes=2 * GIB, sha256="0" * 64)
        part = audit_pb2.AuditUploadRequest(header=header).SerializeToString()
        calls = [channel.stream_unary(UPLOAD)(metadata=TOKEN) for _ in range(2)]
        for call in calls:
            await call.write(part)
        yield


@asynccontextmanager
async def headless(server: ServerProcess) -> AsyncIterator[None]:
    """520 uploads that never send their header."""
    async with _channel(server) as channel:
        calls = [channel.stream_unary(UPLOAD)(metadata=TOKEN) for _ in range(520)]
        yield
        _cancel(calls)


@asynccontextmanager
async def unsaid(server: ServerProcess) -> AsyncIterator[None]:
    """900 questions that never say what they ask."""
    async with _channel(server) as channel:
        calls = [channel.stream_unary(AUDIT)(metadata=TOKEN) for _ in range(900)]
        yield
        _cancel(calls)


@asynccontextmanager
async def watchers(server: ServerProcess) -> AsyncIterator[None]:
    """600 health checks that watch."""
    async with _channel(server) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        calls = [stub.Watch(health_pb2.HealthCheckRequest()) for _ in range(600)]
        yield
        _cancel(calls)


@asynccontextmanager
async def drips(server: ServerProcess) -> AsyncIterator[None]:
    """60 uploads that send a byte every tenth of a second."""
    async with _channel(server) as channel:
        header = audit_pb2.UploadHeader(declared_size_bytes=GIB, sha256="0" * 64)
        parts = [audit_pb2.AuditUploadRequest(header=header)]
        byte = audit_pb2.AuditUploadRequest(chunk=b"x").SerializeToString()

        async def drip() -> None:
            call = channel.stream_unary(UPLOAD)(metadata=TOKEN)
            await call.write(parts[0].SerializeToString())
            while not call.done():
                await call.write(byte)
                await asyncio.sleep(0.1)

        async with _beside([drip] * 60):
            yield


@asynccontextmanager
async def half_open(server: ServerProcess) -> AsyncIterator[None]:
    """1,050 connections to the HTTP port that send half a request."""
    async with _connections(server.http, 1050, HALF_A_REQUEST):
        yield


@asynccontextmanager
async def half_open_grpc(server: ServerProcess) -> AsyncIterator[None]:
    """900 connections to the gRPC port that send nothing."""
    async with _connections(server.grpc, 900, b""):
        yield


@asynccontextmanager
async def crowd(server: ServerProcess) -> AsyncIterator[None]:
    """66 suspects of one caller, of which each takes seconds."""
    data = SLOW.read_bytes()
    async with asker(server.grpc, GREEDY) as greedy:
        asked = [
            asyncio.create_task(greedy.ask(copy_of(data, f"{time.time()} {number}"), 600.0))
            for number in range(66)
        ]
        yield
        for one in asked:
            one.cancel()
        await asyncio.gather(*asked, return_exceptions=True)


ATTACKS: MappingProxyType[str, tuple[Attack, str]] = MappingProxyType(
    {
        "nothing": (nothing, ""),
        "declared": (declared, "every inline audit refused"),
        "headless": (headless, "every call refused, health too"),
        "unsaid": (unsaid, "every call refused, health too"),
        "watchers": (watchers, "every call refused, health too"),
        "drips": (drips, "no end to an upload"),
        "half_open": (half_open, "both ports dead, 1 MB of log a second"),
        "half_open_grpc": (half_open_grpc, "both ports dead"),
        "crowd": (crowd, "all others wait for the last suspect"),
    }
)
"""By name: the attack, and what it did before there were places, limits and turns."""


@dataclass
class Outcome:
    """What one attack did."""

    healthz: Seen = field(default_factory=Seen)
    health: Seen = field(default_factory=Seen)
    cached: Seen = field(default_factory=Seen)
    fresh: Seen = field(default_factory=Seen)
    log_bytes_per_s: float = 0.0


async def play(server: ServerProcess, attack: Attack, seconds: float) -> Outcome:
    """Asks all the while for what should be answered."""
    outcome, data = Outcome(), QUICK.read_bytes()
    async with asker(server.grpc, FAIR) as fair:
        await fair.ask(data, 60.0)
        async with attack(server):
            await asyncio.sleep(min(1.0, seconds / 4))
            logged, began = server.log.stat().st_size, time.monotonic()
            while time.monotonic() < began + seconds:
                await _look(server, fair, data, outcome)
            written = server.log.stat().st_size - logged
            outcome.log_bytes_per_s = written / (time.monotonic() - began)
    return outcome


async def _look(server: ServerProcess, fair: Asker, data: bytes, outcome: Outcome) -> None:
    async def healthz() -> bool:
        limit = aiohttp.ClientTimeout(total=PROBE_WITHIN_S)
        address = f"http://{server.http}/healthz"
        # A connection of its own, as probes make them.
        async with aiohttp.ClientSession(timeout=limit) as one, one.get(address) as answer:
            return answer.status == 200

    async def health() -> bool:
        async with _channel(server) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            asked = health_pb2.HealthCheckRequest()
            return bool((await stub.Check(asked, timeout=PROBE_WITHIN_S)).status)

    async def cached() -> bool:
        told = await fair.ask_again(sha256(data).hexdigest(), PROBE_WITHIN_S)
        return told.startswith("VERDICT_KIND")

    async def fresh() -> bool:
        told = await fair.ask(copy_of(data, str(time.time())), PROBE_WITHIN_S)
        return told.startswith("VERDICT_KIND")

    for ask, seen in (
        (healthz, outcome.healthz),
        (health, outcome.health),
        (cached, outcome.cached),
        (fresh, outcome.fresh),
    ):
        began, right = time.monotonic(), False
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError, grpc.RpcError):
            right = await ask()
        if right:
            seen.seconds.append(time.monotonic() - began)
        else:
            seen.failed += 1
    await asyncio.sleep(0.02)


def _channel(server: ServerProcess) -> grpc.aio.Channel:
    options = [("grpc.use_local_subchannel_pool", 1)]
    return grpc.aio.insecure_channel(server.grpc, options=options)


def _cancel(calls: list[Any]) -> None:
    for call in calls:
        call.cancel()


@asynccontextmanager
async def _connections(address: str, count: int, sent: bytes) -> AsyncIterator[None]:
    host, _, port = address.rpartition(":")
    with ExitStack() as stack:
        for _ in range(count):
            with contextlib.suppress(OSError):
                one = socket.create_connection((host, int(port)), PROBE_WITHIN_S)
                stack.callback(one.close)
                one.sendall(sent)
        yield


@asynccontextmanager
async def _beside(jobs: list[Callable[[], Any]]) -> AsyncIterator[None]:
    running = [asyncio.create_task(job()) for job in jobs]
    try:
        yield
    finally:
        for one in running:
            one.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def page(outcomes: dict[str, Outcome]) -> str:
    """The table."""
    lines = [
        "p50 / p99 of a caller that does no harm, while each attack lasts.",
        "",
        "| attack | /healthz | gRPC health | cached audit | fresh audit | log | before |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, one in outcomes.items():
        attack, before = ATTACKS[name]
        what = (attack.__doc__ or name).strip().rstrip(".")
        cells = [what, *(seen.words() for seen in (one.healthz, one.health, one.cached, one.fresh))]
        lines.append("| " + " | ".join([*cells, f"{one.log_bytes_per_s:.0f} B/s", before]) + " |")
    return "\n".join(lines)


def main(
    seconds: Annotated[float, typer.Option(help="Of each attack.")] = 20.0,
    only: Annotated[list[str] | None, typer.Option(help="Names of attacks; all of them.")] = None,
) -> None:
    """Plays every attack on a server of its own, and writes the result. Six minutes."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    outcomes = {}
    # One loop for all: gRPC keeps the first, and complains of each later one.
    with asyncio.Runner() as loop:
        for name in only or ATTACKS:
            with (
                tempfile.TemporaryDirectory() as folder,
                server_process(Path(folder), ONE_THREAD | token_settings([GREEDY, FAIR])) as server,
            ):
                outcomes[name] = loop.run(play(server, ATTACKS[name][0], seconds))
            typer.echo(f"{name}: {outcomes[name].cached.words()}")
    result: dict[str, object] = {name: asdict(one) for name, one in outcomes.items()}
    write("attacks_service", result, page(outcomes))


if __name__ == "__main__":
    typer.run(main)
