"""The queue, the thread behind it, the byte budget, and the drain."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import hashlib
import os
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from loragate_server.adapter.reference import AdapterReference
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.gate.observer import GateObserver
from loragate_server.gate.worker import Worker
from loragate_server.progress import Leash


async def refusal(asked: Any) -> NoDecisionError:
    with pytest.raises(NoDecisionError) as refused:
        await asked
    return refused.value


async def test_a_full_queue_says_when_to_come_back(
    house: Callable[..., Any], until: Callable[..., Any]
) -> None:
    here = house(queue_limit=2)
    here.engine.hold()
    running = here.ask(here.request(0))
    await here.engine.has_started()
    waiting = [here.ask(here.request(1)), here.ask(here.request(2))]
    await until(lambda: here.gate.worker.depth == 2)
    error = await refusal(here.ask(here.request(3)))
    assert error.reason is ErrorReason.QUEUE_FULL
    assert error.retry_after_s is not None
    assert error.retry_after_s > 0
    assert error.metadata == {"queue_limit": "2"}
    here.engine.let_go()
    await asyncio.gather(running, *waiting)
    assert (await here.ask(here.request(3))).decision_id
    assert here.engine.audits == 4
    assert len(here.counts.waits_s) == 4


async def test_a_question_equal_to_a_waiting_one_needs_no_place_in_the_queue(
    house: Callable[..., Any], until: Callable[..., Any]
) -> None:
    here = house(queue_limit=1)
    here.engine.hold()
    running = here.ask(here.request(0))
    await here.engine.has_started()
    digest = hashlib.sha256(here.files(1)).hexdigest()
    waiting = here.ask(here.request(1))
    await until(lambda: here.gate.worker.depth == 1)
    also = here.ask(here.request(adapters=(AdapterReference(stored_sha256=digest),)))
    await until(lambda: here.counts.shared == 1)
    here.engine.let_go()
    await asyncio.gather(running, waiting, also)
    assert here.engine.audits == 2


async def test_whoever_asks_is_joined_and_leaves_has_no_more_places_for_it(
    house: Callable[..., Any], until: Callable[..., Any]
) -> None:
    here = house(queue_limit=1)
    here.engine.hold()
    running = here.ask(here.request(0))
    await here.engine.has_started()
    first = here.ask(here.request(1))
    await until(lambda: here.gate.worker.depth == 1)
    digest = hashlib.sha256(here.files(1)).hexdigest()
    joined = here.ask(here.request(adapters=(AdapterReference(stored_sha256=digest),)))
    await until(lambda: here.counts.shared == 1)
    first.cancel()
    await asyncio.wait([first])
    assert (await refusal(here.ask(here.request(2)))).reason is ErrorReason.QUEUE_FULL
    joined.cancel()
    await asyncio.wait([joined])
    await until(lambda: not here.gate.worker.tickets._out)
    here.engine.let_go()
    await running
    assert (await here.ask(here.request(2))).decision_id


async def test_a_deadline_in_the_queue_takes_the_question_out_unaudited(
    house: Callable[..., Any], until: Callable[..., Any]
) -> None:
    here = house()
    here.engine.hold()
    running = here.ask(here.request(0))
    await here.engine.has_started()
    waiting = here.ask(here.request(1), deadline_monotonic_s=time.monotonic() + 0.3)
    await until(lambda: here.gate.worker.depth == 1)
    assert (await refusal(waiting)).reason is ErrorReason.DEADLINE_EXCEEDED
    await until(lambda: here.gate.worker.depth == 0)
    here.engine.let_go()
    await running
    assert here.engine.audits == 1
    assert here.recorded() == 1


async def test_a_caller_that_leaves_the_queue_makes_room(
    house: Callable[..., Any], until: Callable[..., Any]
) -> None:
    here = house(queue_limit=1)
    here.engine.hold()
    running = here.ask(here.request(0))
    await here.engine.has_started()
    waiting = here.ask(here.request(1))
    await until(lambda: here.gate.worker.depth == 1)
    waiting.cancel()
    await until(lambda: here.gate.worker.depth == 0)
    after = here.ask(here.request(2))
    await until(lambda: here.gate.worker.depth == 1)
    here.engine.let_go()
    await asyncio.gather(running, after)
    assert here.engine.audits == 2


@pytest.mark.parametrize(
    "error",
    [RuntimeError("/secret/path"), KeyboardInterrupt("/secret/path"), SystemExit("/secret/path")],
    ids=lambda error: type(error).__name__,
)
async def test_an_engine_that_raises_fails_one_audit_and_says_nothing(
    house: Callable[..., Any], error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    here = house()
    here.engine.error = error
    told = await refusal(here.ask())
    assert told.reason is ErrorReason.AUDIT_FAILED
    assert "secret" not in f"{told} {told.metadata}"
    assert told.metadata["incident"] in caplog.text
    assert "/secret/path" in caplog.text, "the operator can find the cause"
    assert here.recorded() == 0
    here.engine.error = None
    assert (await here.ask()).decision_id


def on_the_cpu() -> BaseException:
    with pytest.raises(RuntimeError, match="DefaultCPUAllocator") as caught:
        torch.empty(1 << 50)  # more than there are addresses for
    return caught.value


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        on_the_cpu(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
    ],
    ids=repr,
)
async def test_an_audit_without_memory_says_so_and_when_to_ask_again(
    house: Callable[..., Any], error: BaseException
) -> None:
    here = house()
    here.engine.error = error
    told = await refusal(here.ask())
    assert told.reason is ErrorReason.OUT_OF_MEMORY
    assert "memory" in told.message
    assert told.retry_after_s
    assert here.counts.failures == {ErrorReason.OUT_OF_MEMORY: 1}
    here.engine.error = None
    assert (await here.ask()).decision_id


@pytest.mark.parametrize("error", [RuntimeError("size mismatch"), OSError(errno.EIO, "disk")])
async def test_another_fault_is_no_want_of_memory(
    house: Callable[..., Any], error: BaseException
) -> None:
    here = house()
    here.engine.error = error
    assert (await refusal(here.ask())).reason is ErrorReason.AUDIT_FAILED


async def test_bytes_beyond_the_budget_are_refused_at_once(
    house: Callable[..., Any], until: Callable[..., Any]
) -> None:
    size = len(house().files(0))
    here = house(byte_budget=size + size // 2)
    here.engine.hold()
    running = here.ask(here.inline(0))
    await here.engine.has_started()
    assert here.counts.held_bytes[-1] == size
    for request in (here.inline(1), here.request(1)):
        error = await refusal(here.ask(request))
        assert error.reason is ErrorReason.BYTE_BUDGET_EXHAUSTED
        assert error.retry_after_s is not None
        assert error.metadata == {"budget_bytes": str(size + size // 2)}
    assert here.counts.held_bytes[-1] == size
    here.engine.let_go()
    await running
    assert here.counts.held_bytes[-1] == 0
    assert (await here.ask(here.inline(1))).decision_id


async def test_bytes_that_never_fit_are_refused_without_a_hint(house: Callable[..., Any]) -> None:
    here = house(byte_budget=100)
    for request in (here.inline(), here.request()):
        error = await refusal(here.ask(request))
        assert error.reason is ErrorReason.BYTE_BUDGET_EXHAUSTED
        assert error.retry_after_s is None
    assert here.engine.audits == 0


async def test_every_failure_gives_its_bytes_back(house: Callable[..., Any]) -> None:
    here = house()
    here.engine.error = RuntimeError()
    await refusal(here.ask(here.inline(0)))
    await refusal(here.ask(here.request(0)))
    here.engine.error = None
    broken = AdapterReference(inline_bytes=here.files(0)[:-1])
    await refusal(here.ask(dataclasses.replace(here.inline(), adapters=(broken,))))
    here.engine.hold()
    await refusal(here.ask(here.inline(1), deadline_monotonic_s=time.monotonic() + 0.2))
    gone = here.ask(here.inline(2))
    await here.engine.has_started()
    gone.cancel()
    await asyncio.wait([gone])
    here.engine.let_go()
    here.recorder.log.close()
    await refusal(here.ask(here.inline(3)))
    assert max(here.counts.held_bytes) > 0
    assert here.counts.held_bytes[-1] == 0
    assert sum(here.counts.failures.values()) == 6


async def test_a_drain_waits_and_refuses_what_is_new(
    house: Callable[..., Any], until: Callable[..., Any]
) -> None:
    here = house()
    here.engine.hold()
    running = here.ask()
    await here.engine.has_started()
    assert here.gate.ready
    draining = asyncio.ensure_future(here.gate.drain(20))
    await until(lambda: here.gate.draining)
    assert not here.gate.ready
    error = await refusal(here.ask(here.request(1)))
    assert error.reason is ErrorReason.DRAINING
    assert error.retry_after_s is not None
    assert not draining.done()
    here.engine.let_go()
    assert await draining
    assert (await running).decision_id


async def test_a_drain_gives_up_after_its_grace_time_and_close_answers_the_rest(
    house: Callable[..., Any], until: Callable[..., Any]
) -> None:
    here = house()
    here.engine.hold()
    running = here.ask(here.request(0))
    await here.engine.has_started()
    waiting = here.ask(here.request(1))
    await until(lambda: here.gate.worker.depth == 1)
    assert not await here.gate.drain(0.05)
    closing = asyncio.ensure_future(here.gate.close())
    assert (await refusal(waiting)).reason is ErrorReason.DRAINING
    here.engine.let_go()
    await closing
    answered = await asyncio.gather(running, return_exceptions=True)
    assert here.recorded() == (0 if isinstance(answered[0], NoDecisionError) else 1)
    assert not here.gate.worker.alive


async def test_the_worker_remembers_how_long_audits_take() -> None:
    worker = Worker(4, GateObserver())
    try:
        before = worker.retry_after_s()
        for _ in range(40):
            await worker.submit(lambda: None, Leash())
        assert worker.retry_after_s() <= before
        assert worker.pace.quick_s < 0.01
    finally:
        worker.close()


async def test_a_closed_worker_takes_nothing() -> None:
    worker = Worker(1, GateObserver())
    assert worker.close()
    assert (await refusal(worker.submit(lambda: None, Leash()))).reason is ErrorReason.DRAINING


async def test_work_that_nobody_waits_for_any_more_is_not_begun() -> None:
    worker, done = Worker(1, GateObserver()), []
    leash = Leash()
    leash.cancel()
    try:
        error = await refusal(worker.submit(lambda: done.append(1), leash))
    finally:
        worker.close()
    assert error.reason is ErrorReason.CANCELLED
    assert done == []
