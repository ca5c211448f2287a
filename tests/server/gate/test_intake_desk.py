"""The threads that read adapters: whether one is free, and what a read that hangs does."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

from loragate_server.adapter.reference import AdapterReference, StoredFile
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.gate.intake import IntakeDesk
from loragate_server.intake.fetch import Intake
from loragate_server.progress import Leash
from testkit.waiting import at_most, eventually


class Hanging(Intake):
    """An intake over a file system that does not answer."""

    def __init__(self) -> None:
        self.let_go = threading.Event()

    def fetch(self, ref: AdapterReference, leash: Leash) -> StoredFile:
        self.let_go.wait(30)
        raise NoDecisionError(ErrorReason.SOURCE_NOT_FOUND, "It is not there.", remedy="Look.")


@pytest.fixture
def intake() -> Iterator[Hanging]:
    hanging = Hanging()
    yield hanging
    hanging.let_go.set()


async def ask(desk: IntakeDesk) -> ErrorReason:
    with pytest.raises(NoDecisionError) as caught:
        await desk.fetch([AdapterReference(path="a")], Leash(time.monotonic() + 0.05))
    return caught.value.reason


async def test_reads_that_hang_on_every_thread_are_told_of_until_one_ends(intake: Hanging) -> None:
    desk = IntakeDesk(intake, threads=4)
    for _ in range(3):
        assert await ask(desk) is ErrorReason.DEADLINE_EXCEEDED
    await asyncio.sleep(0.15)
    desk.require_free(stuck_s=0.1)  # one thread is free
    assert await ask(desk) is ErrorReason.DEADLINE_EXCEEDED
    desk.require_free(stuck_s=10)
    await asyncio.sleep(0.15)
    with pytest.raises(RuntimeError, match="all 4 threads that read adapters"):
        desk.require_free(stuck_s=0.1)
    intake.let_go.set()
    for _ in range(200):
        await asyncio.sleep(0.01)
        if await ask(desk) is ErrorReason.SOURCE_NOT_FOUND:
            break
    desk.require_free(stuck_s=0.0)


async def test_a_desk_closes_although_a_read_hangs(intake: Hanging) -> None:
    desk = IntakeDesk(intake, threads=1)
    await ask(desk)
    began = time.monotonic()
    desk.close()
    assert time.monotonic() - began < at_most(1)


def test_a_desk_whose_threads_have_ended_is_not_free(intake: Hanging) -> None:
    desk = IntakeDesk(intake)
    desk.require_free()
    desk.close()

    def ended() -> bool:
        try:
            desk.require_free()
        except RuntimeError as error:
            return "have ended" in str(error)
        return False

    assert eventually(ended, 10)
