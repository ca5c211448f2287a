"""The thread that sends: it begins, survives trouble, and ends whatever receivers do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from loragate_server.config.events import EventReceiver
from loragate_server.events import dispatcher as module
from loragate_server.events.calibration import CalibrationWatch
from loragate_server.events.dispatcher import Dispatcher
from testkit.event_receiver import Taken, event_receiver
from testkit.waiting import at_most, eventually
from tests.server.events.conftest import Clock, Counted, House, OpenHouse, suspected

MakeReceiver = Callable[..., EventReceiver]


def dispatcher(house: House, counted: Counted, uncalibrated: tuple[str, ...] = ()) -> Dispatcher:
    watch = CalibrationWatch(
        house.database, house.announcer, lambda: {"sdxl": uncalibrated}, Clock()
    )
    return Dispatcher(house.settings, house.database, counted, watch)


def test_what_is_recorded_arrives_and_what_is_stale_too(
    house: OpenHouse, receiver: MakeReceiver, counted: Counted
) -> None:
    with event_receiver() as server:
        home = house(receiver(server.url))
        sending = dispatcher(home, counted, ("mascot",))
        sending.start()
        try:
            made = home.record(suspected()).decision_id
            assert eventually(lambda: len(server.ids) == 2, 10.0)
            assert made in server.ids
            assert eventually(lambda: home.rows("event_deliveries") == [], 5.0)
        finally:
            sending.close()
    assert sorted(counted.delivered) == [
        ("tickets", "calibration.stale"),
        ("tickets", "decision.block"),
    ]


def test_it_ends_within_seconds_although_a_receiver_hangs(
    house: OpenHouse, receiver: MakeReceiver, counted: Counted
) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def hang(_: Taken) -> int:
        asked.set()
        go_on.wait(30)
        return 204

    with event_receiver(answer=hang) as server:
        home = house(receiver(server.url, timeout_s=60))
        home.record(suspected())
        sending = dispatcher(home, counted)
        sending.start()
        assert asked.wait(at_most(5))
        began = time.monotonic()
        sending.close()
        assert time.monotonic() - began < at_most(4)
        assert eventually(lambda: not sending._thread.is_alive(), 4.0)
        go_on.set()
    assert len(home.rows("event_deliveries")) == 1


def test_it_goes_on_when_the_database_comes_back(
    house: OpenHouse,
    receiver: MakeReceiver,
    counted: Counted,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "TROUBLE_S", 0.1)
    with event_receiver() as server:
        home = house(receiver(server.url))
        made = home.record(suspected()).decision_id
        with home.database.writing() as connection:
            connection.exec_driver_sql("ALTER TABLE event_deliveries RENAME TO gone")
        sending = dispatcher(home, counted)
        sending.start()
        try:
            time.sleep(0.5)
            assert server.ids == []
            with home.database.writing() as connection:
                connection.exec_driver_sql("ALTER TABLE gone RENAME TO event_deliveries")
            assert eventually(lambda: server.ids == [made], 10.0)
        finally:
            sending.close()


def test_no_decision_waits_for_a_receiver_that_hangs(
    house: OpenHouse, receiver: MakeReceiver, counted: Counted
) -> None:
    go_on = threading.Event()

    def hang(_: Taken) -> int:
        go_on.wait(30)
        return 204

    with event_receiver(answer=hang) as server:
        home = house(receiver(server.url, timeout_s=60))
        sending = dispatcher(home, counted)
        sending.start()
        try:
            began = time.monotonic()
            for n in range(10):
                home.record(suspected(sha256=f"{n:064x}"))
            assert time.monotonic() - began < at_most(3)
        finally:
            go_on.set()
            sending.close()
