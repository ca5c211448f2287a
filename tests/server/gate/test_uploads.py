"""Uploads: taken in chunk by chunk, counted while they last, and never half kept."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.gate.intake import COALESCE_BYTES
from loragate_server.intake.fetch import Receiver
from loragate_server.progress import Leash

POLICY = "version: 1\nmode: enforce\ndefaults:\n  block_score: 6\n  review_score: 4\n"


def question(here: Any) -> Any:
    return here.request(adapters=(here.reference(path=None),))


def stored(here: Any) -> list[Path]:
    folder = here.gate._intake._intake.store_dir
    return [path for path in folder.rglob("*") if path.is_file()]


async def upload(here: Any, content: bytes, chunk: int = 1000, **declared: Any) -> Any:
    leash = Leash()
    size = declared.get("size", len(content))
    sha256 = declared.get("sha256", hashlib.sha256(content).hexdigest())
    with here.gate.receive(question(here), size, sha256, "a.safetensors", Leash()) as session:
        assert here.counts.held_bytes[-1] == 0
        for start in range(0, len(content), chunk):
            await session.write(content[start : start + chunk], leash)
            assert here.counts.held_bytes[-1] == min(start + chunk, len(content))
        file = await session.finish(leash)
    return await here.gate.decide_stored(question(here), file, leash, intake_s=session.spent_s)


@pytest.mark.parametrize("chunk", [1000, 10 * COALESCE_BYTES])
async def test_an_upload_becomes_a_verdict(house: Callable[..., Any], chunk: int) -> None:
    here = house()
    verdict = await upload(here, here.files(0), chunk)
    [adapter] = verdict.decision.evidence.adapters
    assert adapter.sha256 == hashlib.sha256(here.files(0)).hexdigest()
    assert here.counts.held_bytes[-1] == 0
    assert (await here.ask()).cached


async def test_the_intake_of_an_upload_is_measured_without_the_waits_for_its_sender(
    house: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = house()
    content, leash = here.files(0), Leash()
    sha256 = hashlib.sha256(content).hexdigest()
    finish = Receiver.finish

    def slow(self: Receiver, sha256: str) -> Any:
        time.sleep(0.05)
        return finish(self, sha256)

    monkeypatch.setattr(Receiver, "finish", slow)
    with here.gate.receive(question(here), len(content), sha256, "a", Leash()) as session:
        await session.write(content, leash)
        await asyncio.sleep(1)
        file = await session.finish(leash)
    verdict = await here.gate.decide_stored(question(here), file, leash, intake_s=session.spent_s)
    assert 0.05 <= verdict.stage_times_s["intake"] < 1


async def test_an_upload_that_breaks_its_word_is_refused_and_not_kept(
    house: Callable[..., Any],
) -> None:
    here = house()
    content = here.files(0)
    for declared, reason in (
        ({"size": len(content) - 1}, ErrorReason.DECLARED_SIZE_MISMATCH),
        ({"size": len(content) + 1}, ErrorReason.DECLARED_SIZE_MISMATCH),
        ({"sha256": "0" * 64}, ErrorReason.SHA256_MISMATCH),
        ({"sha256": "none"}, ErrorReason.REQUEST_INVALID),
    ):
        with pytest.raises(NoDecisionError) as error:
            await upload(here, content, **declared)
        assert error.value.reason is reason
        assert here.counts.held_bytes[-1] == 0
        assert stored(here) == []
    assert sum(here.counts.failures.values()) == 4


async def test_an_upload_that_cannot_be_decided_is_refused_before_the_first_byte(
    house: Callable[..., Any],
) -> None:
    here = house(byte_budget=10_000)
    here.rule(POLICY + "limits:\n  max_file_bytes: 20000\n")
    for size, reason in (
        (20_001, ErrorReason.FILE_TOO_LARGE),
        (10_001, ErrorReason.BYTE_BUDGET_EXHAUSTED),
    ):
        with (
            pytest.raises(NoDecisionError) as error,
            here.gate.receive(question(here), size, "0" * 64, "a", Leash()),
        ):
            pytest.fail("the upload was let in")
        assert error.value.reason is reason
    assert here.counts.held_bytes[-1] == 0


async def test_a_sender_that_goes_away_leaves_nothing(house: Callable[..., Any]) -> None:
    here = house()
    arrived = asyncio.Event()

    async def send() -> None:
        with here.gate.receive(question(here), 10**6, "0" * 64, "a", Leash()) as session:
            await session.write(b"x" * 100, Leash())
            arrived.set()
            await asyncio.Event().wait()

    sending = asyncio.ensure_future(send())
    await arrived.wait()
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert stored(here) == []
    assert here.counts.failures == {ErrorReason.CANCELLED: 1}
    assert here.counts.held_bytes[-1] == 0


async def test_a_sender_that_goes_away_during_a_write_leaves_nothing(
    house: Callable[..., Any], until: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = house()
    entered, may_go = threading.Event(), threading.Event()
    wrote: list[BaseException | None] = []
    write = Receiver.write

    def slow(self: Receiver, chunk: bytes) -> None:
        entered.set()
        assert may_go.wait(20)
        try:
            write(self, chunk)
        except BaseException as error:
            wrote.append(error)
            raise
        wrote.append(None)

    monkeypatch.setattr(Receiver, "write", slow)
    content = here.files(0) + bytes(2 * COALESCE_BYTES)
    sending = asyncio.ensure_future(upload(here, content, COALESCE_BYTES))
    assert await asyncio.to_thread(entered.wait, 20)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert here.counts.held_bytes[-1] == 0
    may_go.set()
    await until(lambda: bool(wrote) and stored(here) == [])
    assert wrote == [None], "the file was taken away under the thread that wrote it"


async def test_a_drain_lets_an_upload_end_and_answers_it(
    house: Callable[..., Any], until: Callable[..., Any]
) -> None:
    here = house()
    content, leash = here.files(0), Leash()
    sha256 = hashlib.sha256(content).hexdigest()
    with here.gate.receive(question(here), len(content), sha256, "a", Leash()) as session:
        draining = asyncio.ensure_future(here.gate.drain(20))
        await until(lambda: here.gate.draining)
        await session.write(content, leash)
        file = await session.finish(leash)
        assert not draining.done()
    verdict = await here.gate.decide_stored(question(here), file, leash, intake_s=0.1)
    assert verdict.decision_id
    assert await draining
    with (
        pytest.raises(NoDecisionError) as error,
        here.gate.receive(question(here), 10, "0" * 64, "a", Leash()),
    ):
        pytest.fail("the upload was let in")
    assert error.value.reason is ErrorReason.DRAINING
