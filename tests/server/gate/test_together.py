"""Work that begins together with other work: what comes of it is what comes of it alone."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loragate_server.adapter.reference import Strength
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.gate.floor import MOST_TOGETHER, TOGETHER_BYTES
from loragate_server.gate.job import Sharing, off_device
from loragate_server.gate.observer import GateObserver
from loragate_server.gate.worker import Worker
from loragate_server.progress import Leash
from testkit.waiting import busyness

STUCK_AFTER_S = 0.8 * busyness()
LIMIT_S = 30.0


class WentWrongError(Exception):
    """What some work raises."""


@dataclass
class Desk:
    """A worker whose thread is held until the test lets it go, and what was done on it."""

    worker: Worker
    gate: threading.Event = field(default_factory=threading.Event)
    began: threading.Event = field(default_factory=threading.Event)
    groups: list[list[str]] = field(default_factory=list)
    alone: list[str] = field(default_factory=list)
    prepared: list[str] = field(default_factory=list)

    async def hold(self) -> asyncio.Future[Any]:
        leash = Leash()

        def held() -> None:
            self.began.set()
            until = time.monotonic() + LIMIT_S
            while not self.gate.wait(STUCK_AFTER_S / 20) and time.monotonic() < until:
                leash.check()  # held, and not hanging, however long the test takes to ask

        held_work = asyncio.ensure_future(self.worker.submit(held, leash))
        await asyncio.to_thread(self.began.wait, LIMIT_S)
        return held_work

    def ask(
        self,
        name: str,
        *,
        caller: str = "",
        kind: object = "same",
        size_bytes: int = 1,
        prepare: Callable[[], None] = lambda: None,
        fails: bool = False,
        slow: bool = False,
        leash: Leash | None = None,
        ready: bool = True,
    ) -> asyncio.Future[str]:
        def make() -> tuple[str, bool]:
            self.prepared.append(name)
            prepare()
            if fails:
                raise NoDecisionError(ErrorReason.FILE_EMPTY, name, remedy="")
            return name, slow

        def finish(made: Sequence[tuple[str, bool]]) -> list[str | None]:
            self.groups.append([each for each, _ in made])
            return [None if slow else each for each, slow in made]

        def work() -> str:
            self.alone.append(name)
            return make()[0]

        leash = leash or Leash()
        ticket = self.worker.tickets.take(caller, leash)
        sharing = Sharing(kind, size_bytes, make, finish, lambda: ready)
        asked = self.worker.submit(work, leash, ticket=ticket, sharing=sharing)
        return asyncio.ensure_future(asked)

    async def answers(self, asked: Sequence[asyncio.Future[str]]) -> list[Any]:
        """What came of everything that was asked while the thread was held."""
        await asyncio.sleep(0)
        self.gate.set()
        async with asyncio.timeout(LIMIT_S):
            return await asyncio.gather(*asked, return_exceptions=True)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    made = Desk(Worker(200, GateObserver(), stuck_after_s=STUCK_AFTER_S))
    held = await made.hold()
    yield made
    made.gate.set()
    await asyncio.to_thread(made.worker.close, 5)
    await held


async def test_what_waits_begins_together_and_each_gets_its_own_answer(desk: Desk) -> None:
    asked = [desk.ask(str(number)) for number in range(5)]
    assert await desk.answers(asked) == ["0", "1", "2", "3", "4"]
    assert desk.groups == [["0", "1", "2", "3", "4"]]
    assert desk.alone == []


async def test_one_alone_is_done_alone(desk: Desk) -> None:
    assert await desk.answers([desk.ask("a")]) == ["a"]
    assert (desk.groups, desk.alone) == ([], ["a"])


async def test_what_may_not_begin_with_others_yet_is_done_alone(desk: Desk) -> None:
    asked = [desk.ask(name, ready=False) for name in "abc"]
    assert await desk.answers(asked) == ["a", "b", "c"]
    assert (desk.groups, desk.alone) == ([], ["a", "b", "c"])


async def test_a_file_that_is_refused_keeps_nothing_of_its_company(desk: Desk) -> None:
    class Read:
        """What was read of a file."""

    alive: weakref.WeakSet[Read] = weakref.WeakSet()

    def ask(*, fails: bool = False) -> asyncio.Future[str]:
        def prepare() -> Read:
            if fails:
                raise NoDecisionError(ErrorReason.FILE_EMPTY, "bad", remedy="")
            alive.add(made := Read())
            return made

        leash = Leash()
        ticket = desk.worker.tickets.take("", leash)
        sharing = Sharing("same", 1, prepare, lambda made: ["done"] * len(made))
        asked = desk.worker.submit(lambda: "alone", leash, ticket=ticket, sharing=sharing)
        return asyncio.ensure_future(asked)

    gc.disable()
    try:
        answers = await desk.answers([ask(), ask(), ask(fails=True), ask()])
        assert answers[:2] == ["done", "done"]
        await desk.worker.submit(lambda: None, Leash())  # the thread has gone on
        assert len(alive) == 0
    finally:
        gc.enable()


async def test_no_more_begin_together_than_may(desk: Desk) -> None:
    asked = [desk.ask(str(number)) for number in range(MOST_TOGETHER + 2)]
    assert await desk.answers(asked) == [str(number) for number in range(MOST_TOGETHER + 2)]
    assert [len(group) for group in desk.groups] == [MOST_TOGETHER, 2]


async def test_large_files_are_not_all_read_at_once(desk: Desk) -> None:
    asked = [desk.ask(str(number), size_bytes=TOGETHER_BYTES // 2) for number in range(4)]
    await desk.answers([*asked, desk.ask("huge", size_bytes=2 * TOGETHER_BYTES)])
    assert desk.groups == [["0", "1"], ["2", "3"]]
    assert desk.alone == ["huge"]


async def test_only_what_is_alike_begins_together(desk: Desk) -> None:
    asked = [desk.ask(name, kind=name[0]) for name in ("a1", "a2", "b1", "b2", "a3")]
    assert await desk.answers(asked) == ["a1", "a2", "b1", "b2", "a3"]
    assert desk.groups == [["a1", "a2"], ["b1", "b2"]]
    assert desk.alone == ["a3"]


async def test_a_crowd_of_one_caller_does_not_keep_another_out_of_the_company(desk: Desk) -> None:
    crowd = [desk.ask(str(number), caller="crowd") for number in range(40)]
    other = desk.ask("other", caller="other")
    await desk.answers([*crowd, other])
    assert "other" in desk.groups[0]


async def test_what_is_wrong_with_one_stays_with_it(desk: Desk) -> None:
    asked = [desk.ask("a"), desk.ask("bad", fails=True), desk.ask("c")]
    first, second, third = await desk.answers(asked)
    assert (first, third) == ("a", "c")
    assert isinstance(second, NoDecisionError)
    assert second.reason is ErrorReason.FILE_EMPTY
    assert desk.groups == [["a", "c"]]


async def test_what_takes_long_is_done_alone_after_the_others(desk: Desk) -> None:
    asked = [desk.ask("a"), desk.ask("long", slow=True), desk.ask("c")]
    assert await desk.answers(asked) == ["a", "long", "c"]
    assert desk.groups == [["a", "long", "c"]]
    assert desk.alone == ["long"]


async def test_where_the_common_part_fails_each_is_done_alone(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    def finish(_: Sequence[Any]) -> list[str]:
        raise WentWrongError

    def ask(name: str) -> asyncio.Future[str]:
        sharing = Sharing("same", 1, lambda: name, finish)
        leash = Leash()
        ticket = desk.worker.tickets.take("", leash)
        asked = desk.worker.submit(lambda: name, leash, ticket=ticket, sharing=sharing)
        return asyncio.ensure_future(asked)

    assert await desk.answers([ask("a"), ask("b"), ask("c")]) == ["a", "b", "c"]
    assert "3 audits are done one by one" in caplog.text


async def test_one_whose_caller_has_gone_is_not_prepared(desk: Desk) -> None:
    asked = [desk.ask("a"), desk.ask("gone"), desk.ask("c")]
    await asyncio.sleep(0)
    asked[1].cancel()
    first, second, third = await desk.answers(asked)
    assert (first, third) == ("a", "c")
    assert isinstance(second, asyncio.CancelledError)
    assert desk.prepared == ["a", "c"]


async def test_one_that_hangs_off_the_device_costs_its_own_answer_alone(desk: Desk) -> None:
    end = threading.Event()

    def hang() -> None:
        with off_device():
            end.wait(60)
        pytest.fail("work that was given up came to the device")

    asked = [desk.ask("a"), desk.ask("hangs", prepare=hang), desk.ask("c")]
    first, second, third = await desk.answers(asked)
    assert (first, third) == ("a", "c")
    assert isinstance(second, NoDecisionError)
    assert second.reason is ErrorReason.AUDIT_FAILED
    groups = list(desk.groups)
    end.set()
    await asyncio.sleep(0.1)
    assert desk.groups == groups, "a thread that came back to life finished what another has done"
    assert await desk.ask("after") == "after"


async def test_a_server_that_stops_tells_the_whole_company(desk: Desk) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def prepare() -> None:
        inside.set()
        go_on.wait(LIMIT_S)

    asked = [desk.ask("a", prepare=prepare), desk.ask("b"), desk.ask("c")]
    await asyncio.sleep(0)
    desk.gate.set()
    await asyncio.to_thread(inside.wait, LIMIT_S)
    closing = asyncio.ensure_future(asyncio.to_thread(desk.worker.close, 5))
    await asyncio.sleep(0.05)
    go_on.set()
    answers = await desk.answers(asked)
    assert await closing
    assert {one.reason for one in answers} == {ErrorReason.DRAINING}


async def test_the_pace_counts_what_each_took_and_not_what_all_did(desk: Desk) -> None:
    desk.worker.pace.quick_s = 0.0
    asked = [desk.ask(str(number), prepare=lambda: time.sleep(0.05)) for number in range(8)]
    await desk.answers(asked)
    assert 0.01 < desk.worker.pace.quick_s < 0.05 * 8 / 2


async def test_only_a_question_about_one_file_at_one_strength_may_have_company(
    house: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, shared = house(), []
    submit = here.gate.worker.submit

    async def noted(work: Any, leash: Leash, **more: Any) -> Any:
        shared.append(more["sharing"] is not None)
        return await submit(work, leash, **more)

    monkeypatch.setattr(here.gate.worker, "submit", noted)
    twice = replace(here.reference(4), also=(Strength(0.5, 0.5),))
    questions = [here.request(1), here.request(2, 3), here.request(adapters=(twice,))]
    await asyncio.gather(*(here.ask(one) for one in questions))
    assert shared == [False, False, False], "the engine has no first look"
    monkeypatch.setattr(here.engine, "looks_first", True)
    further = replace(here.reference(8), also=(Strength(0.5, 0.5),))
    for one in (here.request(5), here.request(6, 7), here.request(adapters=(further,))):
        await here.ask(one)
    assert shared[3:] == [True, False, False]


async def test_sizes_are_tried_out_once_and_only_when_somebody_waits(
    house: Callable[..., Any], until: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, tried = house(), []
    monkeypatch.setattr(here.engine, "looks_first", True)
    monkeypatch.setattr(here.engine, "try_sizes", lambda: tried.append("tried"))
    await here.ask(here.request(1))
    here.engine.hold()
    asked = [here.ask(here.request(2))]
    await here.engine.has_started()
    asked.append(here.ask(here.request(3)))
    await until(lambda: here.gate.worker.depth == 1)
    assert tried == []
    asked += [here.ask(here.request(seed)) for seed in range(4, 9)]
    await until(lambda: here.gate.worker.depth == 6)
    here.engine.let_go()
    await asyncio.gather(*asked)
    assert tried == ["tried"]


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"),
            st.sampled_from("xy"),
            st.sampled_from(["plain", "fails", "slow", "gone"]),
        ),
        max_size=30,
    )
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_begins_together_everyone_is_answered_once_as_alone(
    questions: list[tuple[str, str, str]],
) -> None:
    async def play() -> None:
        desk = Desk(Worker(200, GateObserver()))
        held = await desk.hold()
        asked = []
        for number, (caller, kind, fate) in enumerate(questions):
            leash = Leash()
            one = desk.ask(
                str(number),
                caller=caller,
                kind=kind,
                fails=fate == "fails",
                slow=fate == "slow",
                leash=leash,
            )
            if fate == "gone":
                leash.cancel()
            asked.append(one)
        answers = await desk.answers(asked)
        await held
        for number, (answer, (_, _, fate)) in enumerate(zip(answers, questions, strict=True)):
            if fate in ("plain", "slow"):
                assert answer == str(number)
            else:
                assert isinstance(answer, NoDecisionError)
        told = [name for group in desk.groups for name in group]
        assert len(told) == len(set(told)), "nobody is looked at twice"
        assert len(desk.worker.tickets._out) == 0
        assert await asyncio.to_thread(desk.worker.close, 5)

    asyncio.run(play())
