"""How fast the service answers, and whether its memory stays flat.

`python -m benchmarks.service` starts a real server process and measures, through the SDK: fresh
audits of one adapter against 12 concepts; cached verdicts at 32 concurrent callers; resident
memory after 20 and after 200 different audits.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import Annotated

import psutil
import typer
from rich.progress import track
from safetensors.torch import load, save

from benchmarks.report import quantile, write
from loragate import AsyncAuditClient
from loragate_server.testing import ServerProcess, server_process

ADAPTER = (
    Path(__file__).parent.parent / "examples" / "adapters" / "learned-jack-o-lantern.safetensors"
)
CONCEPTS = 12
CALLERS = 32


def variant(original: bytes, index: int) -> bytes:
    """A valid adapter with other bytes: every weight scaled by a factor close to 1."""
    factor = 1 + index / 1000
    return save({name: tensor * factor for name, tensor in load(original).items()})


async def fresh_ms(client: AsyncAuditClient, original: bytes, count: int) -> list[float]:
    """Milliseconds of audits that no cache can answer."""
    ids = [concept.concept_id async for concept in client.concepts.list()]
    forbidden = [concept_id for concept_id in ids if not concept_id.startswith("neutral-")]
    times = []
    for index in track(range(count), description="fresh audits"):
        data = variant(original, index)
        began = time.perf_counter()
        result = await client.audit(data, concept_ids=forbidden[:CONCEPTS])
        times.append((time.perf_counter() - began) * 1000)
        if result.cached or len(result.findings) != CONCEPTS:
            raise RuntimeError("this was not a fresh audit against 12 concepts")
    return times


async def cached_ms(client: AsyncAuditClient, original: bytes, each: int) -> list[float]:
    """Milliseconds of one cached verdict, asked for by 32 callers at once."""
    await client.audit(original)
    times: list[float] = []

    async def caller() -> None:
        for _ in range(each):
            began = time.perf_counter()
            result = await client.audit(original)
            times.append((time.perf_counter() - began) * 1000)
            if not result.cached:
                raise RuntimeError("this verdict was not cached")

    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return times


async def memory_mib(
    client: AsyncAuditClient, server: ServerProcess, original: bytes
) -> tuple[float, float]:
    """Resident memory of the server after 20 and after 200 different audits."""
    process = psutil.Process(server.pid)
    after: dict[int, float] = {}
    for index in track(range(200), description="memory over 200 audits"):
        await client.audit(variant(original, 2000 + index))
        if index + 1 in (20, 200):
            after[index + 1] = process.memory_info().rss / 2**20
    return after[20], after[200]


async def measure(server: ServerProcess, count: int, each: int) -> None:
    """Runs all three measurements and writes the result."""
    original = ADAPTER.read_bytes()
    async with AsyncAuditClient(server.grpc) as client:
        await client.audit(variant(original, 999))  # the first audit pays for warming up
        fresh = await fresh_ms(client, original, count)
        cached = await cached_ms(client, original, each)
        early, late = await memory_mib(client, server, original)
    result = {
        "fresh_median_ms": statistics.median(fresh),
        "fresh_p95_ms": quantile(fresh, 0.95),
        "cached_p50_ms": statistics.median(cached),
        "cached_p99_ms": quantile(cached, 0.99),
        "cached_calls": len(cached),
        "rss_after_20_mib": early,
        "rss_after_200_mib": late,
        "rss_growth": late / early - 1,
        "adapter_bytes": len(original),
    }
    lines = ["| measure | value |", "|---|---|"]
    lines += [f"| {name} | {value:.4g} |" for name, value in result.items()]
    write("service", dict(result), "\n".join(lines))


def main(
    count: Annotated[int, typer.Option(help="Fresh audits.")] = 21,
    each: Annotated[int, typer.Option(help="Cached calls of each of the 32 callers.")] = 50,
) -> None:
    """Starts a server and measures it."""
    with tempfile.TemporaryDirectory() as state, server_process(Path(state)) as server:
        asyncio.run(measure(server, count, each))


if __name__ == "__main__":
    typer.run(main)
