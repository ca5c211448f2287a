"""A recorder whose decisions become events, and couriers whose clock the test moves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from loragate_server.config.events import EventReceiver, EventsSection
from loragate_server.events.announcing import EventAnnouncer
from loragate_server.events.courier import Courier
from loragate_server.events.observer import EventObserver
from loragate_server.events.sending import Sender
from loragate_server.policy.decision import Decision, Finding, Mode, Reason, Remedy, VerdictKind
from loragate_server.record.database import Database
from loragate_server.record.recorder import Recorder
from loragate_server.record.verdict import Caller, Verdict
from loragate_server.threads import DaemonPool
from testkit import evidence as made
from testkit.event_receiver import make_secret
from tests.server.record.conftest import database_url, postgres

__all__ = ["database_url", "postgres"]

CALLER = Caller("images", "tenant-7", "request-1", "cn=gpu-1", adapter_names=("style\u202ev1",))


def suspected(
    kind: VerdictKind = VerdictKind.BLOCK, sha256: str = "a" * 64, mode: Mode = Mode.ENFORCE
) -> Decision:
    """A decision because of one concept."""
    concept = made.concept(7.5, 1e-8, degree=61.5)
    found = made.evidence(concept, adapters=(made.adapter(sha256),))
    code = "concept_learned" if kind is VerdictKind.BLOCK else "concept_suspected"
    return replace(
        made.decision(kind, found, mode=mode),
        verdict=VerdictKind.ALLOW if mode is Mode.PILOT else kind,
        would_be_verdict=kind,
        reasons=(Reason(code, "It has learned 'Cat': score 7.50.", "It has learned 'Cat'."),),
        findings=(Finding(concept, kind, Remedy.WITHDRAW_AND_CALL_LEGAL),),
    )


class Counted(EventObserver):
    """Keeps what was told."""

    def __init__(self) -> None:
        self.delivered: list[tuple[str, str]] = []
        self.failed: list[tuple[str, str]] = []

    def event_delivered(self, receiver: str, kind: str) -> None:
        self.delivered.append((receiver, kind))

    def event_failed(self, receiver: str, kind: str) -> None:
        self.failed.append((receiver, kind))


class Clock:
    """Moments that the test moves, never behind those at which its events were made."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now

    def move(self, seconds: float) -> None:
        self.now = max(self.now, datetime.now(UTC)) + timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def counted() -> Counted:
    return Counted()


@pytest.fixture
def receiver(tmp_path: Path) -> Callable[..., EventReceiver]:
    def make(url: str, name: str = "tickets", **settings: Any) -> EventReceiver:
        secret = make_secret(tmp_path / f"{name}.secret")
        known = {"name": name, "url": url, "secret_file": secret, "timeout_s": 5.0}
        return EventReceiver(**{**known, **settings})

    return make


OpenHouse = Callable[..., "House"]


class House:
    """A recorder that announces, and what it wrote."""

    def __init__(self, url: str, log: Path, *receivers: EventReceiver, **settings: Any) -> None:
        console_url = settings.pop("console_url", "")
        self.settings = EventsSection(receivers=receivers, **settings)
        self.announcer = EventAnnouncer(self.settings, console_url)
        self.recorder = Recorder(url, log, announcer=self.announcer)

    @property
    def database(self) -> Database:
        return self.recorder.database

    def record(self, decision: Decision, **options: Any) -> Verdict:
        return self.recorder.record(decision, CALLER, stage_times_s={}, **options)

    def rows(self, table: str) -> list[dict[str, Any]]:
        with self.database.reading() as connection:
            found = connection.execute(text(f"SELECT * FROM {table}"))
            return [dict(row._mapping) for row in found]


@pytest.fixture
def house(database_url: str, tmp_path: Path) -> Iterator[OpenHouse]:
    opened: list[House] = []

    def make(*receivers: EventReceiver, **settings: Any) -> House:
        log = tmp_path / f"decisions-{len(opened)}.jsonl"
        opened.append(House(database_url, log, *receivers, **settings))
        return opened[-1]

    yield make
    for one in opened:
        one.recorder.close()


OpenCourier = Callable[[House, EventReceiver], Any]


@pytest.fixture
async def courier(clock: Clock, counted: Counted) -> AsyncIterator[OpenCourier]:
    async with AsyncExitStack() as stack:
        pool = DaemonPool(2, "test")
        stack.callback(pool.shutdown)

        async def make(house: House, receiver: EventReceiver) -> Courier:
            sender = await stack.enter_async_context(Sender(receiver))
            return Courier(receiver, sender, house.database, pool, counted, clock)

        yield make
