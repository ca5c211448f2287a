"""Work that hangs, and threads that end: noticed, replaced where that is safe, and told of."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.gate.job import off_device
from loragate_server.gate.observer import GateObserver, GivenUp
from loragate_server.gate.worker import MOST_LOST, Worker
from loragate_server.progress import Leash
from testkit.waiting import at_most, busyness

STUCK_AFTER_S = 0.8 * busyness()
AT_MOST_S = 2.0
"""Within which the next piece of work has to be done, after the one that hangs is given up."""


@dataclass
class Told(GateObserver):
    causes: list[GivenUp] = field(default_factory=list)
    stuck: list[int] = field(default_factory=list)

    def worker_given_up(self, cause: GivenUp) -> None:
        self.causes.append(cause)

    def workers_stuck(self, count: int) -> None:
        self.stuck.append(count)


@dataclass
class Desk:
    """A worker, and work that hangs until the test ends it."""

    worker: Worker
    told: Told
    end: threading.Event = field(default_factory=threading.Event)
    broke: int = 0

    def hang(self) -> None:
        """Hangs as native code does: it polls nothing."""
        self.end.wait(60)

    def hang_off_device(self) -> None:
        with off_device():
            self.hang()
        pytest.fail("work that was given up came to the device")

    async def submit(self, work: Callable[[], Any], **leash: Any) -> Any:
        return await self.worker.submit(work, Leash(**leash))


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    told = Told()
    made = Desk(Worker(8, told, stuck_after_s=STUCK_AFTER_S), told)

    def broken() -> None:
        made.broke += 1

    made.worker.when_broken(broken)
    yield made
    made.end.set()
    await asyncio.to_thread(made.worker.close, 5)


async def refusal(asked: Any) -> NoDecisionError:
    with pytest.raises(NoDecisionError) as refused:
        await asked
    return refused.value


async def test_work_that_hangs_off_the_device_is_given_up_and_the_next_is_done(
    desk: Desk, until: Callable[..., Any]
) -> None:
    hanging = asyncio.ensure_future(desk.submit(desk.hang_off_device))
    waiting = asyncio.ensure_future(desk.submit(lambda: "done"))
    error = await refusal(hanging)
    began = time.monotonic()
    assert error.reason is ErrorReason.AUDIT_FAILED
    assert await waiting == "done"
    assert await desk.submit(lambda: "also") == "also"
    assert time.monotonic() - began < at_most(AT_MOST_S)
    assert desk.worker.alive
    assert desk.told.causes == ["stuck"]
    await until(lambda: desk.told.stuck == [1])
    desk.end.set()
    await until(lambda: desk.told.stuck == [1, 0])


async def test_a_thread_that_comes_back_to_life_takes_no_work_and_no_device(
    desk: Desk, until: Callable[..., Any]
) -> None:
    reached: list[str] = []

    def work() -> None:
        with off_device():
            desk.hang()
        reached.append("device")

    await refusal(desk.submit(work))
    names = [await desk.submit(threading.get_ident) for _ in range(3)]
    await until(lambda: desk.told.stuck[-1:] == [1])
    desk.end.set()
    await until(lambda: desk.told.stuck[-1:] == [0])
    assert {await desk.submit(threading.get_ident) for _ in range(3)} == set(names)
    assert reached == []


async def test_work_that_hangs_on_the_device_breaks_the_worker(desk: Desk) -> None:
    hanging = asyncio.ensure_future(desk.submit(desk.hang))
    waiting = asyncio.ensure_future(desk.submit(lambda: pytest.fail("ran on a dirty model")))
    assert (await refusal(hanging)).reason is ErrorReason.AUDIT_FAILED
    assert (await refusal(waiting)).reason is ErrorReason.DRAINING
    assert (await refusal(desk.submit(lambda: None))).reason is ErrorReason.DRAINING
    assert not desk.worker.alive
    assert desk.worker.broken
    assert desk.broke == 1
    desk.end.set()
    await asyncio.sleep(3 * STUCK_AFTER_S)
    assert not desk.worker.alive, "a model that may be dirty must not be used again"


async def test_work_is_on_the_device_again_after_it_was_off_it(desk: Desk) -> None:
    def work() -> None:
        with off_device():
            pass
        desk.hang()

    await refusal(desk.submit(work))
    assert desk.worker.broken


async def test_too_many_threads_that_hang_break_the_worker(desk: Desk) -> None:
    for number in range(MOST_LOST + 1):
        assert not desk.worker.broken, number
        await refusal(desk.submit(desk.hang_off_device))
    assert desk.worker.broken
    assert desk.told.causes == ["stuck"] * (MOST_LOST + 1)


@pytest.mark.parametrize("sign", ["poll", "report"])
async def test_work_that_gives_signs_of_life_is_left_alone(desk: Desk, sign: str) -> None:
    leash = Leash()

    def work() -> str:
        until = time.monotonic() + 4 * STUCK_AFTER_S
        while time.monotonic() < until:
            time.sleep(STUCK_AFTER_S / 8)
            leash.check() if sign == "poll" else leash.report("screen", 0.5)
        return "done"

    assert await desk.worker.submit(work, leash) == "done"
    assert desk.told.causes == []


async def test_what_a_process_that_stood_still_did_not_say_is_no_sign_of_hanging(
    desk: Desk,
) -> None:
    look = desk.worker._look
    stood_still, judged = threading.Event(), threading.Event()

    def after_a_standstill(late_s: float) -> None:
        jobs = desk.worker._floor.running
        if not jobs or stood_still.is_set():
            look(late_s)
            return
        stood_still.set()
        jobs[-1].began_monotonic_s -= 1000
        jobs[-1].leash.alive_monotonic_s -= 1000
        look(late_s + 1000)
        judged.set()

    desk.worker._look = after_a_standstill  # type: ignore[method-assign]

    def work() -> str:
        assert judged.wait(60)
        return "done"

    assert await desk.submit(work) == "done"
    assert desk.told.causes == []
    assert (await refusal(desk.submit(desk.hang_off_device))).reason is ErrorReason.AUDIT_FAILED
    assert desk.told.causes == ["stuck"], "what hangs afterwards is found as before"


async def test_time_in_the_queue_is_no_sign_of_hanging(desk: Desk) -> None:
    leash = Leash()

    def slow() -> None:
        for _ in range(8):
            time.sleep(STUCK_AFTER_S / 2)
            leash.check()

    first = asyncio.ensure_future(desk.worker.submit(slow, leash))
    assert await desk.submit(lambda: "done") == "done"
    await first
    assert desk.told.causes == []


async def test_a_thread_that_has_ended_is_replaced(
    desk: Desk, until: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    run = desk.worker._hands.do

    def ends(job: Any) -> None:
        desk.worker._hands.do = run  # type: ignore[method-assign]
        raise SystemExit

    desk.worker._hands.do = ends  # type: ignore[method-assign]
    lost = asyncio.ensure_future(desk.submit(lambda: "lost"))
    waiting = asyncio.ensure_future(desk.submit(lambda: "done"))
    assert (await refusal(lost)).reason is ErrorReason.AUDIT_FAILED
    assert await waiting == "done"
    await until(lambda: desk.told.causes == ["dead"])
    assert desk.worker.alive
    assert desk.told.stuck == []


async def test_a_file_whose_reading_hangs_costs_one_answer(
    house: Callable[..., Any], until: Callable[..., Any]
) -> None:
    here = house(stuck_after_s=STUCK_AFTER_S)
    read, end = here.gate._pipeline._read, threading.Event()

    def hangs(*arguments: Any, **options: Any) -> Any:
        here.gate._pipeline._read = read
        end.wait(60)
        return read(*arguments, **options)

    here.gate._pipeline._read = hangs
    error = await refusal(here.ask(here.request(0)))
    assert error.reason is ErrorReason.AUDIT_FAILED
    began = time.monotonic()
    verdict = await here.ask(here.request(1))
    assert time.monotonic() - began < at_most(AT_MOST_S)
    assert verdict.decision_id
    assert here.gate.ready
    end.set()
    await until(lambda: sum(t.name == "audit" for t in threading.enumerate()) >= 1)
    assert here.engine.audits == 1, "what was given up was audited after all"
    assert here.recorded() == 1


async def test_an_engine_that_hangs_makes_the_gate_unready(house: Callable[..., Any]) -> None:
    here = house(stuck_after_s=STUCK_AFTER_S)
    end = threading.Event()
    here.engine.audit = lambda *_, **__: end.wait(60)
    assert (await refusal(here.ask())).reason is ErrorReason.AUDIT_FAILED
    assert not here.gate.ready
    assert (await refusal(here.ask(here.request(1)))).reason is ErrorReason.DRAINING
    assert here.recorded() == 0
    end.set()
