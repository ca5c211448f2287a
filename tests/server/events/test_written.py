"""An event is on record exactly where what it tells of is, whoever is killed when."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from loragate_server.cli.command import application
from loragate_server.config.events import EventKind, EventReceiver
from loragate_server.errors import NoDecisionError
from loragate_server.policy.decision import Mode, VerdictKind
from loragate_server.record.chain import parse_line
from loragate_server.record.put_back import put_back
from loragate_server.record.reviews.review import ReviewAction
from loragate_server.record.reviews.reviews import ReviewRules, Reviews
from tests.server.events.conftest import House, OpenHouse, suspected

MakeReceiver = Callable[..., EventReceiver]
URL = "http://127.0.0.1:9/events"


def bodies(house: House) -> list[dict[str, Any]]:
    return [json.loads(one["body"]) for one in house.rows("events")]


def kinds(house: House) -> list[str]:
    return sorted(one["kind"] for one in house.rows("events"))


def lines(log: Path) -> list[dict[str, Any]]:
    return [parse_line(one) for one in log.read_bytes().splitlines()]


def test_binding_blocks_and_reviews_are_told_of_and_nothing_else(
    house: OpenHouse, receiver: MakeReceiver
) -> None:
    home = house(receiver(URL))
    told = [home.record(suspected(kind)) for kind in (VerdictKind.BLOCK, VerdictKind.REVIEW)]
    home.record(suspected(VerdictKind.ALLOW))
    home.record(suspected(VerdictKind.INCONCLUSIVE))
    home.record(suspected(mode=Mode.PILOT))
    home.record(suspected(), dry_run=True)
    assert kinds(home) == ["decision.block", "decision.review"]
    assert {one["id"] for one in bodies(home)} == {one.decision_id for one in told}


def test_each_receiver_is_told_of_the_kinds_that_it_wants(
    house: OpenHouse, receiver: MakeReceiver
) -> None:
    blocks = receiver(URL, "blocks", kinds=frozenset({EventKind.BLOCK}))
    home = house(blocks, receiver(URL, "all"))
    home.record(suspected())
    home.record(suspected(VerdictKind.REVIEW))
    found = sorted(one["receiver"] for one in home.rows("event_deliveries"))
    assert found == ["all", "all", "blocks"]


def test_nothing_is_written_where_nobody_is_told(house: OpenHouse, receiver: MakeReceiver) -> None:
    home = house(receiver(URL, kinds=frozenset({EventKind.REJECTED})))
    home.record(suspected())
    assert home.rows("events") == []


def test_a_decision_that_cannot_be_logged_is_told_to_nobody(
    house: OpenHouse, receiver: MakeReceiver
) -> None:
    home = house(receiver(URL))
    home.recorder.log.close()
    with pytest.raises(NoDecisionError):
        home.record(suspected())
    assert home.rows("audits") == home.rows("events") == home.rows("event_deliveries") == []


def test_rulings_are_told_of_when_they_are_in_force(
    house: OpenHouse, receiver: MakeReceiver
) -> None:
    home = house(receiver(URL))
    verdict = home.record(suspected(VerdictKind.REVIEW))
    rules = ReviewRules(frozenset({"high"}), timedelta(days=30))
    reviews = Reviews(home.recorder, rules, told=lambda _: None)

    def act(action: ReviewAction, reviewer: str, position: int, **options: Any) -> None:
        known = {"reviewer": reviewer, "reason": f"because {position}", "position": position}
        reviews.act(verdict.decision_id, action, **known, **options)

    until = datetime.now(UTC) + timedelta(days=7)
    act(ReviewAction.APPROVE, "alice", 0, expires_at=until)
    assert kinds(home) == ["decision.review"], "one of two people has approved"
    act(ReviewAction.APPROVE, "bob", 1, expires_at=until)
    act(ReviewAction.REOPEN, "carol", 2, admin=True)
    act(ReviewAction.REJECT, "dave", 3)
    assert kinds(home) == [
        "decision.review",
        "ruling.approved",
        "ruling.rejected",
        "ruling.reopened",
    ]
    [approved] = [one for one in bodies(home) if one["type"] == "loragate.ruling.approved.v1"]
    assert approved["data"]["reviewers"] == ["alice", "bob"]
    assert approved["data"]["expires_at"] == until.isoformat()
    assert approved["data"]["decision_id"] == approved["subject"] == verdict.decision_id
    assert approved["data"]["adapters"][0]["sha256"] == "a" * 64
    assert len({one["id"] for one in bodies(home)}) == 4


def test_what_is_put_back_from_the_log_is_told_of_once(
    house: OpenHouse, receiver: MakeReceiver, tmp_path: Path
) -> None:
    home = house(receiver(URL))
    verdict = home.record(suspected(VerdictKind.REVIEW))
    rules = ReviewRules(frozenset(), timedelta(days=30))
    reviews = Reviews(home.recorder, rules, told=lambda _: None)
    act: dict[str, Any] = {"reviewer": "alice", "reason": "it is one", "position": 0}
    reviews.act(verdict.decision_id, ReviewAction.REJECT, **act)
    before = sorted(bodies(home), key=lambda one: str(one["id"]))
    with home.database.writing() as connection:
        for table in ("audited_adapters", "reviews", "audits", "event_deliveries", "events"):
            connection.exec_driver_sql(f"DELETE FROM {table}")
    for line in lines(tmp_path / "decisions-0.jsonl"):
        put_back(home.database, line)
    assert sorted(bodies(home), key=lambda one: str(one["id"])) == before
    with home.database.writing() as connection:
        for table in ("audited_adapters", "audits"):
            connection.exec_driver_sql(f"DELETE FROM {table}")
    put_back(home.database, lines(tmp_path / "decisions-0.jsonl")[0])
    assert len(home.rows("event_deliveries")) == 2


def test_a_ruling_about_a_decision_that_is_gone_names_files_and_concepts(
    house: OpenHouse, receiver: MakeReceiver, tmp_path: Path
) -> None:
    home = house(receiver(URL, kinds=frozenset({EventKind.REJECTED})))
    verdict = home.record(suspected(VerdictKind.REVIEW))
    rules = ReviewRules(frozenset(), timedelta(days=30))
    act: dict[str, Any] = {"reviewer": "alice", "reason": "it is one", "position": 0}
    Reviews(home.recorder, rules, told=lambda _: None).act(
        verdict.decision_id, ReviewAction.REJECT, **act
    )
    with home.database.writing() as connection:
        for table in ("audited_adapters", "reviews", "audits", "event_deliveries", "events"):
            connection.exec_driver_sql(f"DELETE FROM {table}")
    put_back(home.database, lines(tmp_path / "decisions-0.jsonl")[1])
    [event] = bodies(home)
    assert event["data"]["adapters"] == [{"sha256": "a" * 64}]
    assert event["data"]["concepts"] == [{"id": "cat"}]
    assert event["subject"] == verdict.decision_id


def test_what_a_restored_database_lacks_is_told_of_when_it_is_filled(
    house: OpenHouse, receiver: MakeReceiver, database_url: str, tmp_path: Path
) -> None:
    told = receiver(URL)
    home = house(told)
    verdict = home.record(suspected())
    with home.database.writing() as connection:
        for table in ("audited_adapters", "known_uses", "audits", "event_deliveries", "events"):
            connection.exec_driver_sql(f"DELETE FROM {table}")
    settings = {"name": "tickets", "url": URL, "secret_file": str(told.secret_file)}
    content = {"database_url": database_url, "events": {"receivers": [settings]}}
    (config := tmp_path / "loragate.yaml").write_text(json.dumps(content))
    words = ["log", "reconcile", "--fill", str(tmp_path / "decisions-0.jsonl")]
    filled = CliRunner().invoke(application, [*words, "--config", str(config)])
    assert filled.exit_code == 0, filled.output
    assert [one["id"] for one in bodies(home)] == [verdict.decision_id]


WRITER = """
import sys
from pathlib import Path
from tests.server.events.conftest import House, suspected
from loragate_server.config.events import EventReceiver
url, log, secret = sys.argv[1:]
receiver = EventReceiver(name="one", url="http://127.0.0.1:9/", secret_file=secret)
home = House(url, Path(log), receiver)
print("begun", flush=True)
number = 0
while True:
    number += 1
    home.record(suspected(sha256=f"{number:064x}"))
    print(number, flush=True)
"""


def test_a_kill_at_any_moment_neither_loses_nor_invents_an_event(tmp_path: Path) -> None:
    file, log = tmp_path / "audits.db", tmp_path / "decisions.jsonl"
    command = [sys.executable, "-c", WRITER, f"sqlite:///{file}", log, tmp_path / "secret"]
    total = 0
    for after in (1, 4, 9):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env=dict(os.environ))
        assert process.stdout is not None
        for _ in range(1 + after):
            assert process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        with sqlite3.connect(file) as connection:
            decided = {row[0] for row in connection.execute("SELECT decision_id FROM audits")}
            told = {row[0] for row in connection.execute("SELECT event_id FROM events")}
            waits = {row[0] for row in connection.execute("SELECT event_id FROM event_deliveries")}
        connection.close()
        assert decided == told == waits
        assert len(decided) >= total + after
        total = len(decided)
