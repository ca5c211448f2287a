"""Memory and open files over many audits: `python -m benchmarks.resilience.soak`.

Every audit is of a file that the server has never seen, which is the worst there is for whatever
keeps something of each.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Annotated

import psutil
import typer
from rich.progress import track

from benchmarks.report import write
from benchmarks.resilience.asking import asker
from benchmarks.resilience.load import QUICK
from benchmarks.resilience.overload import ONE_THREAD, fresh
from loragate_server.testing import ServerProcess, server_process

LOOKS = 20
CALLERS = 4
PATIENCE_S = 60.0
WEIGH_EVERY_S = 1.0
WARM_UP = 2_000
"""Audits before the first look counts: until then caches fill."""
CACHED = {"LORAGATE_GATE__VERDICT_CACHE_SIZE": "1000"}
"""So that the cache is full after a while, and what still grows then is something else."""


@dataclass(frozen=True)
class Look:
    """The server after so many audits.

    Attributes:
        rss_mib: resident memory, the median of what it was each second since the look before: it
            goes up and down with the files that are in memory just then.
    """

    audits: int
    rss_mib: float
    files: int
    threads: int


async def soak(
    server: ServerProcess, audits: int, token: str = "", *, warm_up: int = 0
) -> list[Look]:
    """Looks at the server `LOOKS` times, after `warm_up` of the audits.

    Raises:
        RuntimeError: a question got no decision.
    """
    process, files = psutil.Process(server.pid), fresh(QUICK)
    looks = []
    weights_mib: list[float] = []

    async def weigh() -> None:
        while True:
            weights_mib.append(process.memory_info().rss / 2**20)
            await asyncio.sleep(WEIGH_EVERY_S)

    weighing = asyncio.create_task(weigh())
    async with asker(server.grpc, token) as caller:

        async def some(count: int) -> None:
            for _ in range(count):
                told = await caller.ask(next(files), PATIENCE_S)
                if told not in ("VERDICT_KIND_ALLOW", "VERDICT_KIND_REVIEW"):
                    raise RuntimeError(f"no decision: {told}")

        await asyncio.gather(*(some(warm_up // CALLERS) for _ in range(CALLERS)))
        weights_mib.clear()
        each = max(1, (audits - warm_up) // LOOKS // CALLERS)
        for number in track(range(1, LOOKS + 1), description="looks"):
            await asyncio.gather(*(some(each) for _ in range(CALLERS)))
            weights_mib.append(process.memory_info().rss / 2**20)
            looks.append(
                Look(
                    warm_up + number * each * CALLERS,
                    median(weights_mib),
                    process.num_fds(),
                    process.num_threads(),
                )
            )
            weights_mib.clear()
    weighing.cancel()
    return looks


def growth_kib(looks: Sequence[Look]) -> float:
    """KiB per audit over the second half, by least squares."""
    half = looks[len(looks) // 2 :]
    mean_audits = sum(one.audits for one in half) / len(half)
    mean_rss = sum(one.rss_mib for one in half) / len(half)
    over = sum((one.audits - mean_audits) * (one.rss_mib - mean_rss) for one in half)
    return 1024 * over / sum((one.audits - mean_audits) ** 2 for one in half)


def most_over_first(looks: Sequence[Look]) -> float:
    """By which part of the first look's memory a later look was over it, or under it."""
    first = looks[0].rss_mib
    return max((one.rss_mib - first for one in looks), key=abs) / first


def run(folder: Path, audits: int, settings: Mapping[str, str] = CACHED) -> list[Look]:
    """Starts a server and looks at it."""
    with server_process(folder, ONE_THREAD | dict(settings)) as server:
        return asyncio.run(soak(server, audits, warm_up=WARM_UP if audits > WARM_UP else 0))


def main(audits: Annotated[int, typer.Option(help="How many.")] = 50_000) -> None:
    """Writes the result. 50,000 audits take an hour or two, by the machine."""
    with tempfile.TemporaryDirectory() as folder:
        looks = run(Path(folder), audits)
    lines = ["| audits | resident MiB | open files | threads |", "|---|---|---|---|"]
    lines += [
        f"| {one.audits} | {one.rss_mib:.0f} | {one.files} | {one.threads} |" for one in looks
    ]
    lines += ["", f"Farthest from the first look: {most_over_first(looks):+.1%} of its memory."]
    lines += ["", f"Growth over the second half: {growth_kib(looks):.2f} KiB per audit."]
    lines += ["", "Once it was 22.7 KiB with the default cache, and 6.1 KiB with one of 50."]
    result = {"looks": [asdict(one) for one in looks], "growth_kib": growth_kib(looks)}
    result["most_over_first"] = most_over_first(looks)
    write("soak", result, "\n".join(lines))


if __name__ == "__main__":
    typer.run(main)
