"""More questions than can be answered: who is refused, at what cost, and whose turn is next."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from loragate_server.adapter.reference import AdapterReference
from loragate_server.errors import ErrorReason, NoDecisionError, spread
from loragate_server.gate.job import Job
from loragate_server.gate.observer import GateObserver
from loragate_server.gate.queue import FairQueue, Lane
from loragate_server.gate.tickets import MEASURED, Pace, Tickets
from loragate_server.gate.worker import Worker
from loragate_server.intake.fetch import Receiver
from loragate_server.progress import Leash
from loragate_server.record.verdict import Caller


@pytest.fixture
async def worker() -> AsyncIterator[Worker]:
    made = Worker(64, GateObserver())
    yield made
    await asyncio.to_thread(made.close, 5)


def refusal_of(tickets: Tickets, caller: str, leash: Leash | None = None) -> NoDecisionError:
    with pytest.raises(NoDecisionError) as refused:
        tickets.take(caller, leash or Leash())
    assert refused.value.reason is ErrorReason.QUEUE_FULL
    return refused.value


async def job(caller: str, *, suspicious: bool = False) -> Job:
    future = asyncio.get_running_loop().create_future()
    return Job(lambda: None, Leash(), future, caller=caller, suspicious=suspicious)


# Places


async def test_a_full_queue_refuses_before_a_byte_is_looked_at(
    house: Callable[..., Any], until: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = house(queue_limit=1)
    here.engine.hold()
    running = here.ask(here.inline(0))
    await here.engine.has_started()
    waiting = here.ask(here.inline(1))
    await until(lambda: here.gate.worker.depth == 1)
    touched: list[str] = []
    monkeypatch.setattr(Receiver, "write", lambda *_: touched.append("written"))
    monkeypatch.setattr(
        "loragate_server.gate.intake.hashlib.sha256", lambda *_: touched.append("hashed")
    )
    for request in (here.inline(2), here.request(2)):
        with pytest.raises(NoDecisionError) as refused:
            await here.ask(request)
        assert refused.value.reason is ErrorReason.QUEUE_FULL
    with (
        pytest.raises(NoDecisionError) as refused,
        here.gate.receive(here.request(adapters=(AdapterReference(),)), 10, "0" * 64, "a", Leash()),
    ):
        pytest.fail("the upload was let in")
    assert refused.value.reason is ErrorReason.QUEUE_FULL
    assert touched == []
    monkeypatch.undo()
    here.engine.let_go()
    await asyncio.gather(running, waiting)


async def test_what_is_in_the_cache_is_answered_by_a_full_queue_too(
    house: Callable[..., Any], until: Callable[..., Any]
) -> None:
    here = house(queue_limit=1)
    first = await here.ask(here.inline(5))
    digest = first.decision.evidence.adapters[0].sha256
    await here.engine.has_started()
    here.engine.hold()
    running = here.ask(here.request(0))
    await here.engine.has_started()
    waiting = here.ask(here.request(1))
    await until(lambda: here.gate.worker.depth == 1)
    asked = here.request(adapters=(AdapterReference(stored_sha256=digest),))
    assert (await here.ask(asked)).cached
    here.engine.let_go()
    await asyncio.gather(running, waiting)


def test_one_caller_leaves_places_for_others() -> None:
    tickets = Tickets(64, Pace())
    held = [tickets.take("greedy", Leash()) for _ in range(52)]
    error = refusal_of(tickets, "greedy")
    assert "52 audits of yours" in error.message
    assert error.metadata == {"queue_limit": "64"}
    for name in ("second", "third", "fourth"):
        tickets.take(name, Leash())
    held[0].leave()
    held[0].leave()
    refusal_of(tickets, "greedy")


def test_bytes_that_are_there_already_are_not_thrown_away_for_want_of_a_place() -> None:
    tickets = Tickets(2, Pace())
    for _ in range(2):
        tickets.take("one", Leash())
    refusal_of(tickets, "one")
    for name in ("two", "three"):
        tickets.take(name, Leash(), paid=True)
    with pytest.raises(NoDecisionError):
        tickets.take("four", Leash(), paid=True)


def test_a_turn_that_would_come_after_the_deadline_is_not_waited_for() -> None:
    pace = Pace()
    tickets = Tickets(64, pace)
    for _ in range(4 * MEASURED):
        pace.took(1.0, suspicious=False)
    for _ in range(5):
        tickets.take("one", Leash())
    soon = Leash(deadline_monotonic_s=time.monotonic() + 4)
    error = refusal_of(tickets, "one", soon)
    assert "after its deadline" in error.message
    assert error.retry_after_s == pytest.approx(5, rel=0.1)
    # Another caller's turn comes after one of the first one's.
    tickets.take("other", soon)


def test_hints_when_to_come_back_are_spread() -> None:
    hints = {round(spread(10.0), 3) for _ in range(50)}
    assert len(hints) > 40
    assert min(hints) >= 10.0
    assert max(hints) <= 15.0


async def test_places_come_back_whatever_becomes_of_a_question(house: Callable[..., Any]) -> None:
    here = house(queue_limit=2)
    for seed in range(3):
        await here.ask(here.inline(seed))
    here.engine.error = RuntimeError()
    for seed in range(3, 6):
        with pytest.raises(NoDecisionError):
            await here.ask(here.inline(seed))
    here.engine.error = None
    with pytest.raises(NoDecisionError):
        await here.ask(here.request(adapters=(AdapterReference(inline_bytes=b"nothing"),)))
    assert not here.gate.worker.tickets._out
    assert not here.gate.worker.tickets._held


# Turns


async def test_callers_take_turns_however_much_one_has_waiting() -> None:
    queue = FairQueue()
    for _ in range(50):
        queue.put(await job("greedy"))
    for _ in range(3):
        queue.put(await job("fair"))
    taken = []
    for _ in range(8):
        one = queue.pop()
        taken.append(one.caller)
        queue.charge(one, 0.1)
    assert Counter(taken)["fair"] == 3
    assert taken[:2].count("fair") == 1


async def test_turns_are_shared_by_the_time_that_work_takes() -> None:
    queue = FairQueue()
    for _ in range(40):
        queue.put(await job("long"))
        queue.put(await job("short"))
    served: Counter[str] = Counter()
    for _ in range(22):
        one = queue.pop()
        seconds = 1.0 if one.caller == "long" else 0.1
        served[one.caller] += round(10 * seconds)
        queue.charge(one, seconds)
    assert served["long"] == pytest.approx(served["short"], abs=10)


async def test_who_was_away_saves_nothing_up() -> None:
    queue = FairQueue()
    for _ in range(20):
        queue.put(await job("steady"))
    for _ in range(10):
        queue.charge(queue.pop(), 1.0)
    for _ in range(10):
        queue.put(await job("late"))
    taken = []
    for _ in range(8):
        one = queue.pop()
        taken.append(one.caller)
        queue.charge(one, 1.0)
    assert taken.count("steady") >= 3


async def test_no_stream_of_new_names_keeps_out_who_was_served_before() -> None:
    queue = FairQueue()
    queue.put(await job("regular"))
    queue.charge(queue.pop(), 1.0)
    queue.put(await job("regular"))
    for number in range(50):
        for name in range(4):
            queue.put(await job(f"stranger {number}.{name}"))
        one = queue.pop()
        if one.caller == "regular":
            break
        queue.charge(one, 1.0)
    assert one.caller == "regular"
    assert number < 20


async def test_clocks_of_names_that_never_come_back_are_forgotten() -> None:
    queue = FairQueue()
    for number in range(5000):
        queue.put(await job(f"stranger {number}"))
        queue.charge(queue.pop(), 0.5)
    assert len(queue._clocks[Lane.QUICK]._served) < 2000


async def test_suspects_get_a_fifth_of_the_time_and_the_first_looks_the_rest() -> None:
    queue = FairQueue()
    for _ in range(200):
        queue.put(await job("one"))
        queue.put(await job("one", suspicious=True))
    served: Counter[bool] = Counter()
    for _ in range(150):
        one = queue.pop()
        served[one.suspicious] += 1
        queue.charge(one, 0.1)
    assert served[False] / served[True] == pytest.approx(4, rel=0.1)


async def test_work_that_nobody_waits_for_leaves_the_queue() -> None:
    queue = FairQueue()
    first, second = await job("one"), await job("one")
    queue.put(first)
    queue.put(second)
    queue.remove(first)
    queue.remove(first)
    assert list(queue) == [second]
    assert queue.pop() is second
    with pytest.raises(IndexError):
        queue.pop()


# Lanes


def suspect(leash: Leash, let_go: threading.Event, log: list[str], name: str) -> Any:
    """Work as an audit does it: a first look, then pieces with turns between them."""

    def work() -> str:
        log.append(f"look {name}")
        leash.turn()
        log.append(f"found {name}")
        while not let_go.wait(0.005):
            leash.check()
            leash.turn()
        log.append(f"done {name}")
        return name

    return work


async def test_a_first_look_waits_for_no_suspect(worker: Worker, until: Callable[..., Any]) -> None:
    let_go, log = threading.Event(), []
    leashes = [Leash() for _ in range(4)]
    suspects = [
        asyncio.ensure_future(worker.submit(suspect(leash, let_go, log, str(number)), leash))
        for number, leash in enumerate(leashes)
    ]
    await until(lambda: any(one.startswith("found") for one in log))
    for number in range(5):
        quick = worker.submit(lambda: "quick", Leash())
        assert await asyncio.wait_for(quick, 5) == "quick", number
    assert not any(one.done() for one in suspects)
    let_go.set()
    assert await asyncio.gather(*suspects) == ["0", "1", "2", "3"]


async def test_a_suspect_that_is_alone_goes_on_at_once(worker: Worker) -> None:
    let_go, log, leash = threading.Event(), [], Leash()
    let_go.set()
    assert await worker.submit(suspect(leash, let_go, log, "a"), leash) == "a"
    assert log == ["look a", "found a", "done a"]


async def test_a_suspect_found_while_another_lets_it_pass_is_put_back(
    worker: Worker, until: Callable[..., Any]
) -> None:
    let_go, log = threading.Event(), []
    first, second = Leash(), Leash()
    one = asyncio.ensure_future(worker.submit(suspect(first, let_go, log, "a"), first))
    await until(lambda: "found a" in log)
    two = asyncio.ensure_future(worker.submit(suspect(second, let_go, log, "b"), second))
    await until(lambda: "look b" in log)
    let_go.set()
    assert await asyncio.gather(one, two) == ["a", "b"]
    assert log == ["look a", "found a", "look b", "done a", "look b", "found b", "done b"]


async def test_a_suspect_is_not_starved_by_first_looks(worker: Worker) -> None:
    leash, pieces = Leash(), 0

    def work() -> int:
        nonlocal pieces
        leash.turn()
        for _ in range(20):
            time.sleep(0.005)
            pieces += 1
            leash.turn()
        return pieces

    async def ask_on(slow: asyncio.Future[int]) -> int:
        count = 0
        while not slow.done():
            await worker.submit(lambda: time.sleep(0.005), Leash())
            count += 1
        return count

    slow = asyncio.ensure_future(worker.submit(work, leash))
    counts = await asyncio.gather(*(ask_on(slow) for _ in range(4)))
    assert await slow == 20
    assert 20 < sum(counts) < 250


async def test_work_that_fails_while_it_passes_another_harms_only_itself(
    worker: Worker, until: Callable[..., Any]
) -> None:
    let_go, log, leash = threading.Event(), [], Leash()
    one = asyncio.ensure_future(worker.submit(suspect(leash, let_go, log, "a"), leash))
    await until(lambda: "found a" in log)

    def fails() -> None:
        raise ValueError("a broken file")

    with pytest.raises(NoDecisionError) as refused:
        await worker.submit(fails, Leash())
    assert refused.value.reason is ErrorReason.AUDIT_FAILED
    let_go.set()
    assert await one == "a"


async def test_a_suspect_whose_caller_goes_is_not_done_anew(
    worker: Worker, until: Callable[..., Any]
) -> None:
    let_go, log = threading.Event(), []
    first, second = Leash(), Leash()
    one = asyncio.ensure_future(worker.submit(suspect(first, let_go, log, "a"), first))
    await until(lambda: "found a" in log)
    two = asyncio.ensure_future(worker.submit(suspect(second, let_go, log, "b"), second))
    await until(lambda: "look b" in log)
    two.cancel()
    await asyncio.wait([two])
    let_go.set()
    assert await one == "a"
    assert await worker.submit(lambda: "next", Leash()) == "next"
    assert log.count("look b") == 1


async def test_work_whose_caller_would_be_gone_before_it_ends_is_not_begun(worker: Worker) -> None:
    for _ in range(MEASURED):
        worker.pace.took(10.0, suspicious=False)
    begun: list[int] = []
    leash = Leash(deadline_monotonic_s=time.monotonic() + 1)
    with pytest.raises(NoDecisionError) as refused:
        await worker.submit(lambda: begun.append(1), leash)
    assert refused.value.reason is ErrorReason.DEADLINE_EXCEEDED
    assert begun == []


async def test_the_queue_is_shared_among_callers_who_have_proven_their_names(
    house: Callable[..., Any], until: Callable[..., Any]
) -> None:
    here = house(queue_limit=16)
    here.engine.hold()
    greedy = [
        here.ask(here.inline(seed, caller=Caller(identity="greedy", service=str(seed))))
        for seed in range(20)
    ]
    await here.engine.has_started()
    await until(lambda: sum(one.done() for one in greedy) + here.gate.worker.depth == 19)
    refused = sum(one.done() for one in greedy)
    assert 6 <= refused <= 7
    waiting = here.gate.worker.depth
    fair = here.ask(here.inline(30, caller=Caller(identity="fair")))
    await until(lambda: here.gate.worker.depth == waiting + 1)
    here.engine.let_go()
    await fair
    assert sum(one.done() for one in greedy) <= refused + 3
    await asyncio.gather(*greedy, return_exceptions=True)
