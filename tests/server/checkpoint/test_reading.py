"""Requests are read beside the event loop, for a limited time, and never by too many at once."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Iterator

import pytest

from loragate_server.checkpoint.reading import LARGE_THREADS, MOST_WAITING, RequestReader
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.intercept.extraction import RefusalCode, RefusedRequestError
from loragate_server.intercept.refusals import unreadable
from loragate_server.progress import Leash
from testkit.waiting import busyness

LARGE = 1 << 20


@pytest.fixture
def reader() -> Iterator[RequestReader]:
    made = RequestReader(limit_s=0.2)
    yield made
    made.close()


def spin() -> None:
    while True:
        sum(range(100))


async def test_what_takes_too_long_is_ended_and_the_next_is_read(reader: RequestReader) -> None:
    with pytest.raises(RefusedRequestError) as caught:
        await reader.run(spin, LARGE, Leash())
    assert caught.value.code is RefusalCode.READING_TOO_LONG
    assert "intercept.reading_s" in caught.value.remedy
    assert await reader.run(lambda: 7, LARGE, Leash()) == 7


async def test_the_event_loop_goes_on_while_a_request_is_read(reader: RequestReader) -> None:
    reading = asyncio.ensure_future(reader.run(spin, LARGE, Leash()))
    turns = 0
    while not reading.done():
        await asyncio.sleep(0.005)
        turns += 1
    assert turns > 5
    assert isinstance(reading.exception(), RefusedRequestError)


async def test_a_small_request_does_not_wait_for_large_ones(reader: RequestReader) -> None:
    release = threading.Event()
    large = [
        asyncio.ensure_future(reader.run(release.wait, LARGE, Leash()))
        for _ in range(LARGE_THREADS + 1)
    ]
    assert await reader.run(lambda: "small", 100, Leash()) == "small"
    assert not any(one.done() for one in large)
    release.set()
    assert all(await asyncio.gather(*large))


async def test_of_too_many_requests_one_is_told_to_come_again(reader: RequestReader) -> None:
    release = threading.Event()
    waiting = [
        asyncio.ensure_future(reader.run(release.wait, LARGE, Leash())) for _ in range(MOST_WAITING)
    ]
    await asyncio.sleep(0)
    with pytest.raises(NoDecisionError) as caught:
        await reader.run(lambda: 7, LARGE, Leash())
    assert caught.value.reason is ErrorReason.QUEUE_FULL
    assert caught.value.retry_after_s
    release.set()
    await asyncio.gather(*waiting)
    assert await reader.run(lambda: 7, LARGE, Leash()) == 7


async def test_nobody_waits_longer_than_the_deadline(reader: RequestReader) -> None:
    release = threading.Event()
    leash = Leash(deadline_monotonic_s=time.monotonic() + 0.1)
    with pytest.raises(NoDecisionError) as caught:
        await reader.run(release.wait, LARGE, leash)
    assert caught.value.reason is ErrorReason.DEADLINE_EXCEEDED
    release.set()


async def test_the_garbage_collector_waits_until_a_request_is_read(reader: RequestReader) -> None:
    assert gc.isenabled()
    assert await reader.run(gc.isenabled, LARGE, Leash()) is False
    with pytest.raises(RefusedRequestError):
        await reader.run(spin, LARGE, Leash())
    assert gc.isenabled()


async def test_a_refusal_does_not_keep_what_was_read(reader: RequestReader) -> None:
    def refuse() -> None:
        body = ["large"] * 1000
        try:
            body.index("small")
        except ValueError as error:
            raise unreadable("The body is none.", "Send another.") from error

    with pytest.raises(RefusedRequestError) as caught:
        await reader.run(refuse, LARGE, Leash())
    assert caught.value.__cause__ is None
    frames = []
    at = caught.value.__traceback__
    while at is not None:
        frames.append(at.tb_frame.f_code.co_name)
        at = at.tb_next
    assert "refuse" not in frames


async def test_reading_that_hangs_is_told_to_the_probes(reader: RequestReader) -> None:
    release = threading.Event()
    hanging = asyncio.ensure_future(reader.run(release.wait, LARGE, Leash()))
    await asyncio.sleep(0.1)
    with pytest.raises(RuntimeError, match="threads that read requests are busy"):
        reader.require_free(stuck_s=0.01)
    release.set()
    await hanging
    # the answer is there a moment before its thread is free again
    async with asyncio.timeout(5 * busyness()):
        while reader._large.busy_s():
            await asyncio.sleep(0.01)
    reader.require_free(stuck_s=0.01)
