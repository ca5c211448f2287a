"""More questions than can be answered: `python -m benchmarks.resilience.overload`.

A real server gets files that it has never seen, at one, two, five and ten times the rate that it
can answer, each with its bytes. What is wanted is that it goes on answering as many as it can, and
refuses the rest at once. Then one caller asks for its share of the server beside one who asks for
ten times the whole; and beside one who has 66 suspects audited, which take a hundred times as long.

The server has one processor and the callers have another, where there are two: callers are on
other machines, and what they cost there must not be counted as if the server had spent it. A
machine that is shared is now a fifth faster and now slower, so what a rate brings is held against
what the server could do just before it and just after.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import psutil
import typer

from benchmarks.report import write
from benchmarks.resilience.asking import Answers, asker, copy_of, token_settings
from benchmarks.resilience.load import QUICK, SLOW
from loragate_server.testing import ServerProcess, server_process

CALLERS = ("one", "two", "three", "four")
GREEDY, FAIR = "greedy", "fair"
TIMES = (1, 2, 5, 10)
SUSPECTS = 66
ONE_THREAD = {"LORAGATE_THREADS": "1"}

_numbers = itertools.count()


def fresh(file: Path) -> Iterator[bytes]:
    """Files that no server has seen, without end."""
    data = file.read_bytes()
    while True:
        yield copy_of(data, str(next(_numbers)))


@contextmanager
def server_apart(folder: Path, settings: Mapping[str, str]) -> Iterator[ServerProcess]:
    """A server on one processor; this process keeps to another meanwhile, if there is one."""
    ours = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, ours[:1])  # which the server inherits
    try:
        with server_process(folder, settings) as server:
            _move(ours[1:2] or ours)
            yield server
    finally:
        _move(ours)


def _move(processors: Sequence[int]) -> None:
    for thread in psutil.Process().threads():
        with suppress(ProcessLookupError):  # it has ended since
            os.sched_setaffinity(thread.id, processors)


@dataclass(frozen=True)
class Goodput:
    """What became of an offered rate.

    Attributes:
        times: the offered rate over the capacity just before.
        capacity_per_s: the mean of that and of the capacity just after.
        share: decisions per second over `capacity_per_s`.
        refused_p99_ms: until a refusal.
        decided_p99_ms: until a decision.
        others: answers that were neither.
    """

    times: float
    capacity_per_s: float
    share: float
    refused_p99_ms: float
    decided_p99_ms: float
    others: int


async def capacity(address: str, seconds: float) -> float:
    """Decisions per second that four callers get who each ask one question after the other."""
    answers = await _all(address, [("keep", 0.0)] * len(CALLERS), seconds)
    return sum(len(one.decided_s) for one in answers) / seconds


async def goodput(address: str, times: float, seconds: float) -> Goodput:
    """What so many times the capacity brings."""
    before = await capacity(address, seconds / 2)
    rate, began_s = times * before / len(CALLERS), time.monotonic()
    answers = await _all(address, [("offer", rate)] * len(CALLERS), seconds)
    decided = [one for each in answers for one in each.decided_s]
    refused = [one for each in answers for one in each.refused_s]
    told = Answers()
    # Those that came while questions did: what is answered after them is not offered load.
    came = [at for one in answers for at in one.decided_at_s if at < began_s + seconds]
    most = (before + await capacity(address, seconds / 2)) / 2
    return Goodput(
        times=times,
        capacity_per_s=most,
        share=len(came) / seconds / most,
        refused_p99_ms=told.p99_ms(refused),
        decided_p99_ms=told.p99_ms(decided),
        others=sum(one.others.total() for one in answers),
    )


async def _all(address: str, jobs: Sequence[tuple[str, float]], seconds: float) -> list[Answers]:
    async def one(name: str, kind: str, rate: float) -> Answers:
        async with asker(address, name) as caller:
            if kind == "keep":
                await caller.keep_asking(fresh(QUICK), seconds)
            else:
                await caller.offer(fresh(QUICK), rate, seconds)
            return caller.answers

    named = zip(CALLERS, jobs, strict=True)
    return await asyncio.gather(*(one(name, *job) for name, job in named))


async def beside_greedy(address: str, most: float, seconds: float) -> float:
    """The part of its share that a caller gets who asks for it beside one who asks for all."""
    async with asker(address, GREEDY) as greedy, asker(address, FAIR) as fair:
        crowd = asyncio.create_task(greedy.offer(fresh(QUICK), 10 * most, seconds + 1))
        await asyncio.sleep(1)
        await fair.offer(fresh(QUICK), most / 2, seconds)
        await crowd
        return len(fair.answers.decided_s) / fair.answers.asked


async def beside_suspects(address: str, most: float, seconds: float) -> tuple[float, float]:
    """The answered part of a quarter of the capacity, and its p99 in ms, beside 66 suspects."""
    async with asker(address, GREEDY) as greedy, asker(address, FAIR) as fair:
        files = itertools.islice(fresh(SLOW), SUSPECTS)
        crowd = [asyncio.create_task(greedy.ask(data, 600.0)) for data in files]
        await asyncio.sleep(1)
        await fair.offer(fresh(QUICK), most / 4, seconds)
        for one in crowd:
            one.cancel()
        await asyncio.gather(*crowd, return_exceptions=True)
        answers = fair.answers
        return len(answers.decided_s) / answers.asked, answers.p99_ms(answers.decided_s)


async def measure(
    address: str, seconds: float, times: Sequence[float] = TIMES
) -> dict[str, object]:
    """All figures."""
    await capacity(address, min(5.0, seconds))  # the first audits pay for warming up
    found = [await goodput(address, one, seconds) for one in times]
    share, p99_ms = await beside_suspects(address, found[-1].capacity_per_s, seconds)
    most = await capacity(address, seconds / 2)
    return {
        "offered": [asdict(one) for one in found],
        "fair_beside_greedy": await beside_greedy(address, most, seconds),
        "quick_beside_suspects": share,
        "quick_beside_suspects_p99_ms": p99_ms,
    }


def page(result: dict[str, object], found: Sequence[Goodput]) -> str:
    """The table."""
    lines = [
        "Files never seen. Capacity is that of just before and just after, in decisions a second.",
        "",
        "| offered | capacity | decided, of it | decision p99 | refusal p99 | others |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| x{one.times:g} | {one.capacity_per_s:.1f} | {one.share:.0%} | "
        f"{one.decided_p99_ms:.0f} ms | {one.refused_p99_ms:.0f} ms | {one.others} |"
        for one in found
    ]
    lines += [
        "",
        f"Beside a caller who asks for ten times the whole, one who asks for its half gets "
        f"{result['fair_beside_greedy']:.0%} of it. Beside {SUSPECTS} suspects, a caller with "
        f"harmless files gets {result['quick_beside_suspects']:.0%} of its answers, at a p99 of "
        f"{result['quick_beside_suspects_p99_ms']:.0f} ms.",
        "",
        "Before questions took a place in the queue first: 39 % of capacity at x2, 6 % at x10.",
    ]
    return "\n".join(lines)


def main(
    seconds: Annotated[float, typer.Option(help="Of each load.")] = 30.0,
) -> None:
    """Starts a server, measures, and writes the result. Eight minutes."""
    settings = ONE_THREAD | token_settings([*CALLERS, GREEDY, FAIR])
    with (
        tempfile.TemporaryDirectory() as folder,
        server_apart(Path(folder), settings) as server,
    ):
        result = asyncio.run(measure(server.grpc, seconds))
    offered = result["offered"]
    assert isinstance(offered, list)
    write("overload", result, page(result, [Goodput(**one) for one in offered]))


if __name__ == "__main__":
    typer.run(main)
