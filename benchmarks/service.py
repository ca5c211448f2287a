"""How fast the service answers, and whether its memory stays flat.

`python -m benchmarks.service` starts a real server process and measures, through the SDK: fresh
audits of one adapter against 12 concepts; cached verdicts at 32 concurrent callers; resident
memory after 20 and after 200 different audits. Cached verdicts are asked for in three ways: by
h2load, which saturates the server; by the SDK with a pause between the calls of each caller; and
by the SDK without, which saturates the client. h2load is Debian's package nghttp2-client.
"""

from __future__ import annotations

import asyncio
import shutil
import statistics
import subprocess
import tempfile
import time
import urllib.request
from hashlib import sha256
from pathlib import Path
from typing import Annotated

import psutil
import typer
from prometheus_client.parser import text_string_to_metric_families
from rich.progress import track
from safetensors.torch import load, save

from benchmarks.report import quantile, write
from benchmarks.resilience.asking import copy_of
from benchmarks.resilience.load import QUICK
from loragate import AdapterReference, AsyncAuditClient
from loragate.v1 import audit_pb2
from loragate_server.config.schema import EMBEDDED_POLICY
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


async def sdk_cached_ms(
    client: AsyncAuditClient, original: bytes, each: int, pause_s: float
) -> list[float]:
    """Milliseconds of one cached verdict, asked for by 32 callers of one client.

    With a pause, each caller waits so long between its calls; without, the client itself is
    saturated and its event loop is part of what is measured.
    """
    adapter = AdapterReference(data=original)
    await client.audit(adapter)
    times: list[float] = []

    async def caller(number: int) -> None:
        await asyncio.sleep(pause_s * number / CALLERS)
        for _ in range(each):
            began = time.perf_counter()
            result = await client.audit(adapter)
            times.append((time.perf_counter() - began) * 1000)
            if not result.cached:
                raise RuntimeError("this verdict was not cached")
            await asyncio.sleep(pause_s)

    await asyncio.gather(*(caller(number) for number in range(CALLERS)))
    return times


def cached_ms(grpc: str, original: bytes, folder: Path, calls: int) -> list[float]:
    """Milliseconds of one cached verdict at 32 connections that each ask again at once.

    The callers are h2load's, which costs next to nothing: what is measured is the server, at the
    most that it can answer.
    """
    reference = audit_pb2.AdapterReference(stored_sha256=sha256(original).hexdigest())
    message = audit_pb2.AuditRequest(adapters=[reference]).SerializeToString()
    body, log = folder / "request.bin", folder / "h2load.log"
    body.write_bytes(b"\0" + len(message).to_bytes(4, "big") + message)  # gRPC's framing
    headers = ("--header=content-type: application/grpc", "--header=te: trailers")
    for count in (calls // 4, calls):  # the first run warms up
        log.unlink(missing_ok=True)
        load = (
            "h2load",
            f"--requests={count}",
            f"--clients={CALLERS}",
            "--max-concurrent-streams=1",
        )
        address = f"http://{grpc}/loragate.v1.AuditService/Audit"
        command = (*load, *headers, f"--data={body}", f"--log-file={log}", address)
        subprocess.run(command, check=True, capture_output=True)
    lines = [line.split() for line in log.read_text().splitlines()]
    if len(lines) != calls or any(status != "200" for _, status, _ in lines):
        raise RuntimeError("h2load did not get an answer to every call")
    return [int(microseconds) / 1000 for _, _, microseconds in lines]


async def cache_hits(server: ServerProcess) -> float:
    """How many questions the server has answered from its cache."""
    page = await asyncio.to_thread(
        lambda: urllib.request.urlopen(f"http://{server.http}/metrics", timeout=10).read().decode()
    )
    return sum(
        sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == "loragate_cache_requests_total" and sample.labels["result"] == "hit"
    )


async def memory_mib(client: AsyncAuditClient, server: ServerProcess) -> tuple[float, float]:
    """Resident memory of the server after 20 and after 200 different audits."""
    harmless = QUICK.read_bytes()
    process = psutil.Process(server.pid)
    after: dict[int, float] = {}
    for index in track(range(200), description="memory over 200 audits"):
        await client.audit(copy_of(harmless, str(index)))
        if index + 1 in (20, 200):
            after[index + 1] = process.memory_info().rss / 2**20
    return after[20], after[200]


async def measure(server: ServerProcess, folder: Path, count: int, each: int) -> None:
    """Runs all three measurements and writes the result."""
    original = ADAPTER.read_bytes()
    async with AsyncAuditClient(server.grpc) as client:
        await client.audit(variant(original, 999))  # the first audit pays for warming up
        fresh = await fresh_ms(client, original, count)
        paced = await sdk_cached_ms(client, original, each, pause_s=0.1)
        saturated = await sdk_cached_ms(client, original, each, pause_s=0.0)
        await client.audit(original)
        before = await cache_hits(server)
        calls = 32 * CALLERS * each // 4
        served = await asyncio.to_thread(cached_ms, server.grpc, original, folder, calls)
        if await cache_hits(server) - before != calls + calls // 4:
            raise RuntimeError("not every call was answered from the cache")
        early, late = await memory_mib(client, server)
    result = {
        "fresh_median_ms": statistics.median(fresh),
        "fresh_p95_ms": quantile(fresh, 0.95),
        "cached_calls": len(served),
        "cached_p50_ms": statistics.median(served),
        "cached_p99_ms": quantile(served, 0.99),
        # each of the callers asks again at once
        "cached_per_s": 1000 * CALLERS / statistics.fmean(served),
        "sdk_paced_calls": len(paced),
        "sdk_paced_p50_ms": statistics.median(paced),
        "sdk_paced_p99_ms": quantile(paced, 0.99),
        "sdk_saturated_calls": len(saturated),
        "sdk_saturated_p50_ms": statistics.median(saturated),
        "sdk_saturated_p99_ms": quantile(saturated, 0.99),
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
    if shutil.which("h2load") is None:
        raise SystemExit("h2load is missing; on Debian: apt-get install nghttp2-client")
    with tempfile.TemporaryDirectory() as folder:
        policy = Path(folder) / "policy.yaml"
        # fresh audits are asked about some concepts only
        policy.write_text(EMBEDDED_POLICY.read_text().replace("callers: []", 'callers: ["*"]'))
        with server_process(Path(folder), {"LORAGATE_POLICY": str(policy)}) as server:
            asyncio.run(measure(server, Path(folder), count, each))


if __name__ == "__main__":
    typer.run(main)
