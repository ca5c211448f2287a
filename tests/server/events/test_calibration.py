"""A calibration that no longer speaks for all concepts is told of once while that lasts."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import pytest

from loragate_server.config.events import EventReceiver
from loragate_server.errors import NoDecisionError
from loragate_server.events.calibration import CalibrationWatch
from loragate_server.record.outbox.rows import delivered
from tests.server.events.conftest import Clock, House, OpenHouse

URL = "http://127.0.0.1:9/events"
MakeReceiver = Callable[..., EventReceiver]
State = dict[str, Sequence[str]]


def watch(house: House, state: State, clock: Clock) -> CalibrationWatch:
    """What a replica has, from its start on."""
    return CalibrationWatch(house.database, house.announcer, lambda: state, clock)


def deliver(house: House) -> list[str]:
    """Takes what waits; returns the ids."""
    found = [str(one["event_id"]) for one in house.rows("event_deliveries")]
    with house.database.writing() as connection:
        for one in found:
            assert delivered(connection, one, "tickets")
    return found


def test_what_no_calibration_speaks_for_is_told_once_by_all_replicas(
    house: OpenHouse, receiver: MakeReceiver, clock: Clock
) -> None:
    home = house(receiver(URL))
    state: State = {"sdxl": ("mascot", "logo"), "tiny": ()}
    replicas = [watch(home, state, clock) for _ in range(3)]
    for one in replicas * 2:
        one.look()
    [row] = home.rows("events")
    event = json.loads(row["body"])
    assert event["type"] == "loragate.calibration.stale.v1"
    assert event["data"] == {
        "base_model": "sdxl",
        "concepts": [{"id": "logo"}, {"id": "mascot"}],
        "concept_count": 2,
    }
    assert deliver(home) == [event["id"]]
    watch(home, state, clock).look()  # another start
    assert home.rows("event_deliveries") == []


def test_it_is_told_again_when_it_had_been_mended_in_between(
    house: OpenHouse, receiver: MakeReceiver, clock: Clock
) -> None:
    home = house(receiver(URL))
    stale: State = {"sdxl": ("mascot",)}
    watch(home, stale, clock).look()
    [first] = deliver(home)
    watch(home, {"sdxl": ()}, clock).look()
    assert home.rows("events") == []
    watch(home, stale, clock).look()
    [second] = deliver(home)
    assert first != second


def test_another_set_of_concepts_is_another_event_and_the_first_is_still_delivered(
    house: OpenHouse, receiver: MakeReceiver, clock: Clock
) -> None:
    home = house(receiver(URL))
    state: State = {"sdxl": ("mascot",)}
    replica = watch(home, state, clock)
    replica.look()
    state["sdxl"] = ("mascot", "logo")
    replica.look()
    assert len(deliver(home)) == 2
    assert len(home.rows("events")) == 1


def test_a_base_model_that_is_not_served_yet_says_nothing(
    house: OpenHouse, receiver: MakeReceiver, clock: Clock
) -> None:
    home = house(receiver(URL))
    watch(home, {"sdxl": ("mascot",)}, clock).look()
    before = home.rows("events")
    watch(home, {}, clock).look()
    assert home.rows("events") == before


def test_what_could_not_be_told_is_told_by_the_next_look(
    house: OpenHouse, receiver: MakeReceiver, clock: Clock
) -> None:
    home = house(receiver(URL))
    replica = watch(home, {"sdxl": ("mascot",)}, clock)
    with home.database.writing() as connection:
        connection.exec_driver_sql("ALTER TABLE events RENAME TO gone")
    with pytest.raises(NoDecisionError):
        replica.look()
    with home.database.writing() as connection:
        connection.exec_driver_sql("ALTER TABLE gone RENAME TO events")
    replica.look()
    assert len(home.rows("events")) == 1
