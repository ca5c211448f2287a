"""Equal questions share one audit, and each caller leaves it on its own."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from loragate_server.adapter.reference import AdapterReference, StoredFile
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.gate.request import GateRequest
from loragate_server.progress import Leash
from loragate_server.record.verdict import Caller


async def test_equal_questions_in_flight_share_one_audit(
    house: Callable[..., Any], until: Callable[..., Any]
) -> None:
    here = house()
    here.engine.hold()
    asked = [here.ask(here.request(caller=Caller(request_id=str(n)))) for n in range(8)]
    asked += [here.ask(here.inline())]
    await until(lambda: here.counts.shared == 8)
    here.engine.let_go()
    verdicts = await asyncio.gather(*asked)
    assert here.engine.audits == 1
    assert len({one.decision_id for one in verdicts}) == 1
    assert here.recorded() == 1
    assert len(here.counts.answers) == 9


async def test_different_questions_do_not_share_an_audit(house: Callable[..., Any]) -> None:
    here = house()
    here.engine.hold()
    asked = [here.ask(here.request(strength=strength)) for strength in (1.0, 0.5)]
    await here.engine.has_started()
    here.engine.let_go()
    first, second = await asyncio.gather(*asked)
    assert first.decision_id != second.decision_id
    assert here.engine.audits == 2


async def test_a_question_that_was_answered_during_intake_is_not_audited_again(
    house: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = house()
    intake, entered, may_go = here.gate._intake._intake, threading.Event(), threading.Event()
    fetch = intake.fetch

    def slow_for_bytes(ref: AdapterReference, leash: Leash) -> StoredFile:
        if ref.inline_bytes is not None:
            entered.set()
            assert may_go.wait(20)
        return fetch(ref, leash)

    monkeypatch.setattr(intake, "fetch", slow_for_bytes)
    slow = here.ask(here.inline())
    assert await asyncio.to_thread(entered.wait, 20)
    first = await here.ask(here.request())
    may_go.set()
    second = await slow
    assert here.engine.audits == 1
    assert second.cached
    assert second.decision_id == first.decision_id


async def test_a_caller_that_goes_away_leaves_the_others_their_answer(
    house: Callable[..., Any], until: Callable[..., Any]
) -> None:
    here = house()
    here.engine.hold()
    first, second, third = (here.ask() for _ in range(3))
    await here.engine.has_started()
    await until(lambda: here.counts.shared == 2)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    third.cancel()
    await asyncio.wait([third])
    here.engine.let_go()
    assert (await second).decision_id
    assert here.engine.audits == 1
    assert here.counts.failures == {ErrorReason.CANCELLED: 2}


async def test_when_the_last_caller_goes_the_audit_ends_and_the_worker_lives(
    house: Callable[..., Any], until: Callable[..., Any]
) -> None:
    here = house()
    here.engine.hold()
    asked = [here.ask(), here.ask()]
    await here.engine.has_started()
    for one in asked:
        one.cancel()
    await asyncio.wait(asked)
    await until(lambda: here.engine.ended == 1)
    assert here.recorded() == 0
    here.engine.let_go()
    assert not (await here.ask()).cached
    assert here.gate.worker.alive
    assert here.engine.audits == 2


async def test_a_leash_that_is_cancelled_gives_no_verdict(
    house: Callable[..., Any], until: Callable[..., Any]
) -> None:
    here = house()
    here.engine.hold()
    leash = Leash()
    asked = asyncio.ensure_future(here.gate.decide(here.request(), leash))
    await here.engine.has_started()
    leash.cancel()
    with pytest.raises(NoDecisionError) as refused:
        await asked
    assert refused.value.reason is ErrorReason.CANCELLED
    assert here.counts.failures == {ErrorReason.CANCELLED: 1}


async def test_a_caller_in_a_hurry_leaves_and_the_patient_one_gets_the_answer(
    house: Callable[..., Any],
) -> None:
    here = house()
    here.engine.hold()
    hurried = here.ask(deadline_monotonic_s=time.monotonic() + 0.3)
    await here.engine.has_started()
    patient = here.ask()
    with pytest.raises(NoDecisionError) as refused:
        await hurried
    assert refused.value.reason is ErrorReason.DEADLINE_EXCEEDED
    assert not patient.done()
    here.engine.let_go()
    assert (await patient).decision_id
    assert here.engine.audits == 1


async def test_a_deadline_during_the_audit_ends_it(
    house: Callable[..., Any], until: Callable[..., Any]
) -> None:
    here = house()
    here.engine.hold()
    with pytest.raises(NoDecisionError) as refused:
        await here.ask(deadline_monotonic_s=time.monotonic() + 0.2)
    assert refused.value.reason is ErrorReason.DEADLINE_EXCEEDED
    await until(lambda: here.engine.ended == here.engine.audits)
    assert here.recorded() == 0


async def test_a_deadline_that_has_passed_already_costs_nothing(house: Callable[..., Any]) -> None:
    here = house()
    with pytest.raises(NoDecisionError) as refused:
        await here.ask(deadline_monotonic_s=time.monotonic() - 1)
    assert refused.value.reason is ErrorReason.DEADLINE_EXCEEDED
    assert here.engine.audits == 0


async def test_everybody_who_waits_is_told_of_the_progress(
    house: Callable[..., Any], until: Callable[..., Any]
) -> None:
    here = house()
    here.engine.hold()
    told: list[list[str]] = [[], []]

    def ask(index: int) -> asyncio.Task[Any]:
        return here.ask(report=lambda stage, fraction: told[index].append(stage))

    first = ask(0)
    await here.engine.has_started()
    second = ask(1)
    await until(lambda: here.counts.shared == 1)
    here.engine.let_go()
    await asyncio.gather(first, second)
    assert list(dict.fromkeys(told[0])) == ["intake", "queued", "response", "policy", "record"]
    assert list(dict.fromkeys(told[1])) == ["intake", "response", "policy", "record"]


async def test_a_failed_flight_fails_for_all_and_is_forgotten(
    house: Callable[..., Any], until: Callable[..., Any]
) -> None:
    here = house()
    here.engine.hold()
    here.engine.error = RuntimeError("the weights of the mayor's face")
    asked = [here.ask(), here.ask()]
    await here.engine.has_started()
    await until(lambda: here.counts.shared == 1)
    here.engine.let_go()
    for one in asked:
        with pytest.raises(NoDecisionError) as refused:
            await one
        assert refused.value.reason is ErrorReason.AUDIT_FAILED
    here.engine.error = None
    assert not (await here.ask(GateRequest(adapters=(here.reference(),)))).cached
    assert len(here.gate._flights) == 0
