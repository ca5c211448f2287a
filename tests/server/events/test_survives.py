"""Events survive receivers that are away, broken or slow; time is moved, not waited for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta

import pytest

from loragate_server.config.events import EventReceiver
from loragate_server.events.courier import IDLE_S, LONGEST_PAUSE_S, Courier, pause_s
from loragate_server.record.outbox.letters import Choice, backlogs, letters, retry, walk
from loragate_server.record.outbox.rows import claim, receiver_fails
from testkit.event_receiver import Taken, event_receiver
from testkit.waiting import at_most
from tests.server.events.conftest import (
    Clock,
    Counted,
    House,
    OpenCourier,
    OpenHouse,
    suspected,
)

MakeReceiver = Callable[..., EventReceiver]


async def play(courier: Courier, clock: Clock, seconds: float) -> int:
    """Lets so much time go by; returns the number of attempts and looks."""
    end, steps = clock.now.timestamp() + seconds, 0
    while clock.now.timestamp() < end:
        clock.move(max(await courier.step(), 0.001))
        steps += 1
    return steps


async def drain(courier: Courier, clock: Clock) -> None:
    """Steps until nothing is left, through all pauses."""
    for _ in range(1000):
        wait_s = await courier.step()
        clock.move(wait_s)
        if wait_s == IDLE_S:
            with courier._database.reading() as connection:
                if not backlogs(connection).get(courier._receiver.name):
                    return
    raise AssertionError("events are left")


def ids(house: House, count: int) -> list[str]:
    return [house.record(suspected(sha256=f"{n:064x}")).decision_id for n in range(count)]


async def test_events_survive_a_receiver_that_is_down_for_ten_minutes(
    house: OpenHouse, receiver: MakeReceiver, courier: OpenCourier, clock: Clock, counted: Counted
) -> None:
    with event_receiver() as first:
        port, url = first.server_port, first.url
    told = receiver(url)
    home = house(told)
    made = ids(home, 5)
    clock.move(1)
    runner = await courier(home, told)
    steps = await play(runner, clock, 600)
    assert len(counted.failed) >= 8
    assert steps < 60, "a receiver that is away is asked all the time"
    made += ids(home, 5)
    with event_receiver(port) as again:
        await drain(runner, clock)
        assert sorted(again.ids) == sorted(made)
        assert len(counted.delivered) == 10
        # One event is the first to find the receiver back; all others come in order.
        rest = again.ids[1:]
        assert rest == sorted(rest)
    assert home.rows("events") == home.rows("event_deliveries") == []


async def test_a_receiver_that_is_away_longer_gets_no_more_than_dead_letters(
    house: OpenHouse, receiver: MakeReceiver, courier: OpenCourier, clock: Clock
) -> None:
    with event_receiver() as gone:
        url, port = gone.url, gone.server_port
    told = receiver(url, give_up_after="2h")
    home = house(told)
    made = ids(home, 30)
    clock.move(1)
    runner = await courier(home, told)
    await play(runner, clock, 7000)
    with home.database.reading() as connection:
        assert backlogs(connection)["tickets"].dead == 0
    await play(runner, clock, 1000)
    with home.database.reading() as connection:
        stands = backlogs(connection)["tickets"]
        found = letters(connection, Choice(dead=True), 100)
    # Those too that there was no time to try: they have waited as long.
    assert (stands.waiting, stands.dead) == (0, 30)
    assert {one.event_id for one in found} == set(made)
    assert any("cannot be reached" in one.last_error for one in found)
    assert await runner.step() == IDLE_S
    with home.database.writing() as connection:
        dead = Choice(dead=True)
        assert retry(connection, dead, walk(connection, dead), clock.now) == 30
    with event_receiver(port) as again:
        await drain(runner, clock)
        assert sorted(again.ids) == sorted(made)


async def test_what_was_never_tried_is_not_given_up_when_a_receiver_that_came_back_fails_again(
    house: OpenHouse, receiver: MakeReceiver, courier: OpenCourier, clock: Clock
) -> None:
    takes = False
    with event_receiver(answer=lambda _: 204 if takes else 503) as server:
        told = receiver(server.url, give_up_after="2h")
        home = house(told)
        ids(home, 30)
        clock.move(1)
        runner = await courier(home, told)
        for _ in range(4):
            clock.move(await runner.step())
        assert all(one["failing_since"] for one in home.rows("event_deliveries"))
        takes = True
        for _ in range(3):
            assert await runner.step() == 0.0
        clock.move(7300)
        takes = False
        for _ in range(3):
            clock.move(await runner.step())
        with home.database.reading() as connection:
            stands = backlogs(connection)["tickets"]
            dead = letters(connection, Choice(dead=True), 100)
        assert stands.waiting + stands.dead == 27
        assert len(dead) <= 4, "only what it has failed to take"
        assert all(one.attempts for one in dead)


async def test_a_server_that_was_down_for_days_gives_no_event_up_for_that(
    house: OpenHouse, receiver: MakeReceiver, courier: OpenCourier, clock: Clock
) -> None:
    with event_receiver() as gone:
        url, port = gone.url, gone.server_port
    told = receiver(url)
    home = house(told)
    [made] = ids(home, 1)
    clock.move(5 * 86400)
    runner = await courier(home, told)
    await runner.step()
    clock.move(5)
    with event_receiver(port) as again:
        await drain(runner, clock)
        assert again.ids == [made]


async def test_events_that_a_receiver_never_takes_do_not_hold_up_the_others(
    house: OpenHouse, receiver: MakeReceiver, courier: OpenCourier, clock: Clock
) -> None:
    poison: set[str] = set()
    with event_receiver(answer=lambda one: 500 if one.id in poison else 204) as server:
        told = receiver(server.url)
        home = house(told)
        made = ids(home, 12)
        poison |= set(made[:4])
        clock.move(1)
        runner = await courier(home, told)
        await play(runner, clock, 120)
        taken = [one for one in server.ids if one not in poison]
    assert sorted(taken) == sorted(made[4:])
    with home.database.reading() as connection:
        assert {one.event_id for one in letters(connection, Choice(), 99)} == poison


async def test_a_receiver_that_hangs_holds_up_no_other_one(
    house: OpenHouse, receiver: MakeReceiver, courier: OpenCourier, clock: Clock, counted: Counted
) -> None:
    def hang(_: Taken) -> int:
        time.sleep(2)
        return 204

    with event_receiver(answer=hang) as slow, event_receiver() as quick:
        stuck = receiver(slow.url, "stuck", timeout_s=0.3)
        fine = receiver(quick.url, "fine")
        home = house(stuck, fine)
        ids(home, 3)
        clock.move(1)
        first, second = await courier(home, stuck), await courier(home, fine)

        async def all_three() -> None:
            for _ in range(3):
                assert await second.step() == 0.0

        began = time.monotonic()
        pause, _ = await asyncio.gather(first.step(), all_three())
        assert time.monotonic() - began < at_most(1.0)
        assert pause > 0
        assert len(quick.ids) == 3
    [late] = [one for one in home.rows("event_deliveries") if one["attempts"]]
    assert late["last_error"] == "no answer within 0.3 s"


async def test_an_event_whose_process_was_killed_comes_again_with_the_same_id(
    house: OpenHouse, receiver: MakeReceiver, courier: OpenCourier, clock: Clock
) -> None:
    with event_receiver() as server:
        told = receiver(server.url)
        home = house(told)
        [made] = ids(home, 1)
        clock.move(1)
        killed, other = await courier(home, told), await courier(home, told)
        claimed = await killed._claim()
        assert claimed is not None
        await killed._sender.send(claimed.event, clock())
        # Killed here: the receiver has it, and nobody has noted that.
        assert await other.step() == IDLE_S, "nobody else sends it while the lease lasts"
        clock.move(told.timeout_s + 11)
        await drain(other, clock)
        assert server.ids == [made, made]


async def test_two_replicas_on_one_database_send_each_event_once(
    house: OpenHouse, receiver: MakeReceiver, courier: OpenCourier, clock: Clock
) -> None:
    with event_receiver() as server:
        told = receiver(server.url)
        one, two = house(told), house(told)
        made = ids(one, 15) + ids(two, 15)
        clock.move(1)
        both = [await courier(one, told), await courier(two, told)]
        for _ in range(200):  # one of two that want the same event comes away with none
            await asyncio.gather(*(each.step() for each in both))
            if not one.rows("events"):
                break
        assert sorted(server.ids) == sorted(made)
    assert one.rows("events") == []


@pytest.mark.parametrize(
    ("status", "headers", "said"),
    [
        (302, {"Location": "http://127.0.0.1:1/"}, "answered 302; redirects are not followed"),
        (410, {}, "answered 410"),
        (503, {"Retry-After": "120"}, "answered 503"),
    ],
)
async def test_an_answer_that_is_no_success_is_a_failure(
    house: OpenHouse,
    receiver: MakeReceiver,
    courier: OpenCourier,
    clock: Clock,
    status: int,
    headers: dict[str, str],
    said: str,
) -> None:
    with event_receiver(answer=lambda _: status) as server:
        server.more_headers = headers
        told = receiver(server.url)
        home = house(told)
        ids(home, 1)
        clock.move(1)
        pause = await (await courier(home, told)).step()
        assert len(server.ids) == 1
    [row] = home.rows("event_deliveries")
    assert row["last_error"].startswith(said)
    assert (pause >= 120) == ("Retry-After" in headers)


async def test_a_secret_that_is_gone_puts_events_off_and_is_read_again(
    house: OpenHouse, receiver: MakeReceiver, courier: OpenCourier, clock: Clock
) -> None:
    with event_receiver() as server:
        told = receiver(server.url)
        home = house(told)
        [made] = ids(home, 1)
        secret = told.secret_file.read_text()
        told.secret_file.unlink()
        clock.move(1)
        runner = await courier(home, told)
        await runner.step()
        [row] = home.rows("event_deliveries")
        assert "cannot be read" in row["last_error"]
        assert server.ids == []
        told.secret_file.write_text(secret)
        await drain(runner, clock)
        assert server.ids == [made]


def test_pauses_grow_to_some_minutes_and_differ() -> None:
    assert all(0.5 <= pause_s(1) <= 1 for _ in range(50))
    assert all(LONGEST_PAUSE_S / 2 <= pause_s(40) <= LONGEST_PAUSE_S for _ in range(50))
    assert pause_s(10**6) <= LONGEST_PAUSE_S
    assert len({pause_s(5) for _ in range(20)}) > 10


def test_replicas_that_note_the_same_failure_do_not_wait_for_each_other(
    house: OpenHouse, receiver: MakeReceiver, clock: Clock, database_url: str
) -> None:
    if database_url.startswith("sqlite"):
        pytest.skip("SQLite has one writer")
    home = house(receiver("http://127.0.0.1:9/"))
    ids(home, 4)
    clock.move(1)
    lease = clock.now + timedelta(seconds=20)
    with home.database.writing() as one:
        assert claim(one, "tickets", clock.now, lease) is not None
        with home.database.writing() as other:
            receiver_fails(other, "tickets", clock.now)
    noted = [row["failing_since"] is not None for row in home.rows("event_deliveries")]
    assert sorted(noted) == [False, True, True, True]
