"""`loragate-server events`: dead letters are listed, sent again and dropped, never by accident."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from loragate_server.cli import events as command
from loragate_server.cli.command import application
from loragate_server.config.events import EventReceiver
from loragate_server.policy.decision import VerdictKind
from loragate_server.record.outbox import letters
from loragate_server.record.outbox.letters import Choice, drop, retry, walk
from loragate_server.record.outbox.rows import give_up, receiver_fails
from tests.server.events.conftest import Clock, House, OpenHouse, suspected

MakeReceiver = Callable[..., EventReceiver]
Ask = Callable[..., Result]
URL = "http://127.0.0.1:9/events"


@pytest.fixture
def home(house: OpenHouse, receiver: MakeReceiver, clock: Clock) -> House:
    """Two events for two receivers, of which `old` has given both up."""
    home = house(receiver(URL, "tickets"), receiver(URL, "old"))
    for n in range(2):
        home.record(suspected(sha256=f"{n:064x}"))
    with home.database.writing() as connection:
        receiver_fails(connection, "old", clock.now - timedelta(days=2))
        assert give_up(connection, "old", clock.now, clock.now) == 2
    return home


@pytest.fixture
def ask(home: House, database_url: str, tmp_path: Path, receiver: MakeReceiver) -> Ask:
    told = receiver(URL, "tickets")
    config = tmp_path / "loragate.yaml"
    settings = {"name": told.name, "url": told.url, "secret_file": str(told.secret_file)}
    content = {"database_url": database_url, "events": {"receivers": [settings]}}
    config.write_text(json.dumps(content))

    def run(*words: str) -> Result:
        return CliRunner().invoke(application, ["events", *words, "--config", str(config)])

    return run


def test_what_waits_and_what_was_given_up_is_listed(home: House, ask: Ask) -> None:
    shown = ask("list")
    assert shown.exit_code == 1, shown.output
    lines = shown.stdout.splitlines()
    assert len(lines) == 4
    assert sum("given up" in line for line in lines) == 2
    assert sum(" tickets  decision.block  made" in line and "due" in line for line in lines) == 2
    dead = [json.loads(line) for line in ask("list", "--dead", "--json").stdout.splitlines()]
    assert {one["receiver"] for one in dead} == {"old"}
    waiting = ask("list", "--receiver", "tickets")
    assert waiting.exit_code == 0
    assert len(ask("list", "--most", "1").stdout.splitlines()) == 1


def test_dead_letters_are_sent_again(home: House, ask: Ask) -> None:
    name = home.rows("events")[0]["event_id"]
    assert ask("retry", name, "--receiver", "old").stdout == "1 to be sent again\n"
    assert ask("retry", "--all", "--receiver", "old").stdout == "2 to be sent again\n"
    assert ask("list", "--dead").exit_code == 0
    assert "waits for a receiver that is not configured here" in ask("list").stdout


def test_dead_letters_are_dropped_and_the_others_stay(home: House, ask: Ask) -> None:
    assert ask("drop", "--all-dead").stdout == "2 dropped\n"
    assert [one["receiver"] for one in home.rows("event_deliveries")] == ["tickets"] * 2
    for row in home.rows("events"):
        assert ask("drop", row["event_id"]).stdout == "1 dropped\n"
    assert home.rows("events") == []
    assert "Nothing waits." in ask("list").stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("retry",), 2, "name the ids of events"),
        (("drop",), 2, "name the ids of events"),
        (("retry", "abc", "--all"), 2, "--all, not both"),
        (("retry", "0" * 32), 3, "none of these events waits"),
        (("drop", "\ud800"), 3, "none of these events waits"),
        (("drop", "'; DROP TABLE events"), 3, "none of these events waits"),
    ],
)
def test_nothing_is_never_everything(
    home: House, ask: Ask, words: tuple[str, ...], code: int, said: str
) -> None:
    asked = ask(*words)
    assert asked.exit_code == code
    assert said in asked.stderr
    assert len(home.rows("event_deliveries")) == 4


def test_public_keys_are_shown_and_secrets_are_not(home: House, ask: Ask, tmp_path: Path) -> None:
    secret = tmp_path / "tickets.secret"
    secret.write_text(f"{secret.read_text()}whsk_{'A' * 43}=\n")
    shown = ask("keys")
    assert shown.exit_code == 0, shown.output
    first, second = shown.stdout.splitlines()
    assert first == "tickets a shared secret, with no public key"
    assert second.startswith("tickets whpk_")
    assert secret.read_text().split()[0] not in shown.output
    secret.unlink()
    assert "cannot be read" in ask("keys").stderr


def test_a_letter_that_is_sent_again_has_not_been_failing(home: House, clock: Clock) -> None:
    with home.database.writing() as connection:
        old = Choice(receiver="old")
        assert retry(connection, old, walk(connection, old), clock.now) == 2
        assert give_up(connection, "old", clock.now, clock.now) == 0


def test_many_letters_are_changed_by_batches_that_others_can_write_between(
    house: OpenHouse, receiver: MakeReceiver, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(letters, "BATCH", 2)
    home = house(receiver(URL, "tickets"), receiver(URL, "old"))
    for n in range(5):
        home.record(suspected(sha256=f"{n + 7:064x}"))
    seen: list[int] = []

    def pause(_: float) -> None:
        home.record(suspected(VerdictKind.ALLOW))
        seen.append(len(home.rows("event_deliveries")))

    monkeypatch.setattr(command, "sleep", pause)
    assert ask("retry", "--all").stdout == "14 to be sent again\n"
    assert len(seen) == 7
    with home.database.writing() as connection:
        receiver_fails(connection, "old", datetime.now(UTC) - timedelta(days=2))
        assert give_up(connection, "old", datetime.now(UTC), datetime.now(UTC)) == 7
    seen.clear()
    assert ask("drop", "--all-dead").stdout == "7 dropped\n"
    assert seen == [12, 10, 8, 7]
    assert len(home.rows("events")) == 7


def test_what_changed_between_the_look_and_the_batch_is_left(home: House, clock: Clock) -> None:
    dead = Choice(dead=True)
    with home.database.writing() as connection:
        keys = walk(connection, dead)
        assert retry(connection, dead, keys[:1], clock.now) == 1
        assert drop(connection, dead, keys) == 1
    assert len(home.rows("event_deliveries")) == 3
