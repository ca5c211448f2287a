"""The loads that are measured at length elsewhere, in short: what they promise holds each day."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Iterator

import pytest

from benchmarks.attacks.service import ATTACKS, Outcome, page, play
from benchmarks.resilience.asking import asker, copy_of, token_settings
from benchmarks.resilience.load import QUICK
from benchmarks.resilience.overload import (
    CALLERS,
    FAIR,
    GREEDY,
    ONE_THREAD,
    Goodput,
    capacity,
    goodput,
)
from benchmarks.resilience.overload import page as overload_page
from benchmarks.resilience.soak import LOOKS, growth_kib, soak
from loragate_server.testing import ServerProcess
from testkit.servers import forked_server

SETTINGS = ONE_THREAD | token_settings([*CALLERS, GREEDY, FAIR])
IDLE = [name for name in ATTACKS if name not in ("nothing", "crowd", "drips")]


@pytest.fixture(scope="module", autouse=True)
def many_files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with forked_server(tmp_path_factory.mktemp("state"), SETTINGS) as process:
        yield process


@pytest.mark.parametrize("name", IDLE)
def test_no_idle_crowd_keeps_a_caller_out(server: ServerProcess, name: str) -> None:
    attack, _ = ATTACKS[name]
    outcome = asyncio.run(play(server, attack, 0.5))
    for seen in (outcome.healthz, outcome.health, outcome.cached, outcome.fresh):
        assert seen.failed == 0, outcome
        assert seen.seconds
    assert outcome.log_bytes_per_s < 10_000


@pytest.mark.long  # its share is of a capacity that is measured just before, on an idle machine
def test_ten_times_what_can_be_answered_leaves_most_of_it_answered(server: ServerProcess) -> None:
    async def both() -> tuple[float, float, int]:
        await capacity(server.grpc, 1.0)
        found = await goodput(server.grpc, 10.0, 4.0)
        return found.share, found.refused_p99_ms, found.others

    share, refused_p99_ms, others = asyncio.run(both())
    assert share > 0.5
    assert 0 < refused_p99_ms < 2000
    assert others == 0


def test_a_server_keeps_no_files_open(server: ServerProcess) -> None:
    looks = asyncio.run(soak(server, LOOKS * 4, FAIR))
    assert len(looks) == LOOKS
    assert max(one.files for one in looks) <= looks[0].files + 8
    assert max(one.threads for one in looks) <= looks[0].threads + 8
    assert growth_kib(looks) < 500


def test_a_copy_is_another_file_with_the_same_verdict(server: ServerProcess) -> None:
    async def told() -> list[str]:
        async with asker(server.grpc, FAIR) as fair:
            return [await fair.ask(copy_of(QUICK.read_bytes(), name), 60.0) for name in "ab"]

    assert asyncio.run(told()) == ["VERDICT_KIND_ALLOW"] * 2


def test_pages_name_what_was_measured() -> None:
    assert "520 uploads" in page({"headless": Outcome()})
    result = {
        "fair_beside_greedy": 1.0,
        "quick_beside_suspects": 1.0,
        "quick_beside_suspects_p99_ms": 5.0,
    }
    offered = Goodput(10.0, 20.0, 0.95, 80.0, 4000.0, 0)
    assert "| x10 | 20.0 | 95% |" in overload_page(result, [offered])
