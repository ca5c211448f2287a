"""Many adapters at a time: bounded, each for itself, and both clients alike."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from loragate import AsyncAuditClient, AuditClient, AuditError, Verdict
from loragate.testing import FakeAuditServer
from testkit.waiting import eventually


async def test_each_adapter_gets_an_answer_of_its_own(client: Any, fake: FakeAuditServer) -> None:
    adapters = [f"adapter {number}".encode() for number in range(9)]
    found = await client.collect("audit_many", adapters, concurrency=3, strength=0.5)
    assert sorted(one.index for one in found) == list(range(9))
    for one in found:
        assert one.source == adapters[one.index]
        assert one.result.audited_bytes == adapters[one.index]
        assert one.allowed
        assert one.error is None
    assert len(fake.calls) == 9


async def test_one_without_a_decision_ends_nothing(client: Any, fake: FakeAuditServer) -> None:
    fake.fail_next("FILE_TRUNCATED")
    found = await client.collect("audit_many", [b"a", b"b", b"c"], concurrency=1)
    assert [one.allowed for one in found] == [False, True, True]
    assert isinstance(found[0].error, AuditError)
    assert found[0].result is None


async def test_without_a_service_nothing_is_allowed(make_client: Callable[..., Any]) -> None:
    gone = make_client("127.0.0.1:1", timeout=0.5)
    found = await gone.collect("audit_many", [b"a", b"b"])
    assert [one.result.verdict for one in found] == [Verdict.BLOCK, Verdict.BLOCK]
    assert not any(one.allowed for one in found)


async def test_files_are_read_one_by_one_and_a_missing_one_is_told(
    client: Any, tmp_path: Path
) -> None:
    there, gone = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    there.write_bytes(b"adapter")
    found = await client.collect("audit_files", [there, gone, tmp_path])
    by_source = {one.source: one for one in found}
    assert by_source[there].allowed
    assert isinstance(by_source[gone].error, FileNotFoundError)
    assert by_source[tmp_path].error is not None
    assert not by_source[gone].allowed
    assert not by_source[tmp_path].allowed


@pytest.mark.parametrize("concurrency", [0, -1, 65])
async def test_a_number_of_calls_that_makes_no_sense_is_refused_at_once(
    client: Any, concurrency: int
) -> None:
    with pytest.raises(ValueError, match="concurrency is 1 to 64"):
        await client.call("audit_many", [b"a"], concurrency=concurrency)


async def test_wrong_options_are_raised_and_not_taken_for_an_answer(client: Any) -> None:
    with pytest.raises(ValueError, match="timeout is a positive"):
        await client.collect("audit_many", [b"a", b"b"], timeout=-1)


class Counting:
    """Adapters that note how many were taken."""

    def __init__(self, count: int) -> None:
        self.left, self.taken = count, 0

    def __iter__(self) -> Iterator[bytes]:
        for number in range(self.left):
            self.taken += 1
            yield f"{number}".encode()


def test_no_more_threads_work_than_wanted_and_no_adapter_is_taken_early() -> None:
    with FakeAuditServer(delay_s=0.05) as fake, AuditClient(fake.target) as client:
        adapters, most = Counting(12), 0
        for number, _ in enumerate(client.audit_many(adapters, concurrency=3), 1):
            assert adapters.taken <= number + 2
            names = [one.name for one in threading.enumerate()]
            most = max(most, sum(name.startswith("loragate-audit") for name in names))
        assert most <= 3
        assert adapters.taken == 12


async def test_whoever_stops_early_ends_what_is_under_way() -> None:
    with FakeAuditServer(delay_s=0.2) as fake:
        async with AsyncAuditClient(fake.target) as client:
            adapters = Counting(1000)
            answers = client.audit_many(adapters, concurrency=4)
            assert (await anext(answers)).allowed
            await answers.aclose()  # type: ignore[attr-defined]
            others = asyncio.all_tasks() - {asyncio.current_task()}
            assert not [one for one in others if "_as_they_end" in repr(one) or "one(" in repr(one)]
            assert adapters.taken <= 8
        assert len(fake.calls) <= 8


def test_a_reader_that_stops_gives_the_threads_back() -> None:
    with FakeAuditServer() as fake, AuditClient(fake.target) as client:
        for _ in client.audit_many([b"a"] * 50, concurrency=4):
            break

        def gone() -> bool:
            return not [one for one in threading.enumerate() if "loragate-audit" in one.name]

        assert eventually(gone, 10)
        assert len(fake.calls) < 50
