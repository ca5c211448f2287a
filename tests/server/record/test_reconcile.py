"""Log and database are compared in both directions; nothing that was edited goes unnamed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from typer.testing import CliRunner, Result

from loragate_server.cli.command import application
from loragate_server.errors import NoDecisionError
from loragate_server.policy.decision import Decision
from loragate_server.record.connect import parse_url
from loragate_server.record.log import DecisionLog
from loragate_server.record.reconcile import Difference, reconcile
from loragate_server.record.recorder import Recorder
from loragate_server.record.verdict import Caller

Record = Callable[[], str]


@pytest.fixture
def record(recorder: Recorder, decision: Callable[..., Decision]) -> Record:
    """Records a decision; gives its id."""
    return lambda: recorder.record(decision(), Caller("images"), stage_times_s={}).decision_id


def execute(database_url: str, statement: str, **values: object) -> None:
    engine = create_engine(parse_url(database_url))
    with engine.begin() as connection:
        assert connection.execute(text(statement), values).rowcount == 1
    engine.dispose()


def test_what_was_recorded_is_equal_on_both_sides(
    recorder: Recorder, record: Record, log_path: Path
) -> None:
    for _ in range(3):
        record()
    found = reconcile(recorder.database, [log_path])
    assert (found.equal, found.differences) == (3, ())


def test_a_row_without_a_line_and_a_line_without_a_row_are_named(
    recorder: Recorder, record: Record, log_path: Path, database_url: str
) -> None:
    first, second, third = record(), record(), record()
    execute(database_url, "DELETE FROM audits WHERE decision_id = :id", id=first)
    lines = log_path.read_bytes().splitlines(keepends=True)
    log_path.write_bytes(lines[0] + lines[2])
    found = reconcile(recorder.database, [log_path], settle=lambda: None)
    assert found.equal == 1
    assert found.differences == (
        Difference("decision", first, "log"),
        Difference("decision", second, "database"),
    )
    assert third not in {one.id for one in found.differences}


def test_a_verdict_that_was_edited_in_the_database_is_named(
    recorder: Recorder, record: Record, log_path: Path, database_url: str
) -> None:
    edited = record()
    execute(
        database_url,
        "UPDATE audits SET payload = replace(payload, 'emoji-tiny', 'emoji-huge')"
        " WHERE decision_id = :id",
        id=edited,
    )
    found = reconcile(recorder.database, [log_path])
    assert found.differences == (Difference("decision", edited, "both"),)


def test_a_payload_that_is_no_json_is_named(
    recorder: Recorder, record: Record, log_path: Path, database_url: str
) -> None:
    edited = record()
    execute(database_url, "UPDATE audits SET payload = '[' WHERE decision_id = :id", id=edited)
    found = reconcile(recorder.database, [log_path])
    assert found.differences == (Difference("decision", edited, "both"),)


def test_what_a_note_calls_not_answered_is_no_difference(
    recorder: Recorder, record: Record, log_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = recorder.log.append_decision

    def append_and_fail(*arguments: object, **options: bool) -> None:
        append(*arguments, **options)  # type: ignore[arg-type]
        raise OSError("the database goes away now")

    monkeypatch.setattr(recorder.log, "append_decision", append_and_fail)
    with pytest.raises(NoDecisionError):
        record()
    recorder.log.append_note({"code": "not_answered", "decision_id": _last_id(log_path)})
    found = reconcile(recorder.database, [log_path], settle=lambda: None)
    assert (found.not_answered, found.differences) == (1, ())


def _last_id(log: Path) -> str:
    return str(json.loads(log.read_bytes().splitlines()[-1])["verdict"]["decision_id"])


def test_a_decision_that_is_being_written_is_looked_for_again(
    recorder: Recorder, record: Record, log_path: Path
) -> None:
    record()
    other = log_path.with_name("other.jsonl")
    written = json.loads(log_path.read_bytes())["verdict"]
    log = DecisionLog(other)
    log.append_decision({**written, "decision_id": "f" * 32}, binding=True)
    log.close()
    settled: list[bool] = []
    logs = [log_path, other]
    found = reconcile(recorder.database, logs, settle=lambda: settled.append(True))
    assert settled == [True]
    assert found.differences == (Difference("decision", "f" * 32, "log"),)


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(application, [str(word) for word in words])


def test_the_command_says_with_its_exit_code_whether_anything_differs(
    recorder: Recorder,
    record: Record,
    log_path: Path,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LORAGATE_DATABASE_URL", database_url)
    monkeypatch.setenv("LORAGATE_DECISION_LOG", str(log_path))
    missing = record()
    record()
    same = run("log", "reconcile")
    assert same.exit_code == 0
    assert "2 equal" in same.output
    execute(database_url, "DELETE FROM audits WHERE decision_id = :id", id=missing)
    differs = run("log", "reconcile", log_path)
    assert differs.exit_code == 1
    assert f"decision {missing}: in the log only" in differs.output
    assert "1 different" in differs.output
    log_path.write_text("no log\n")
    broken = run("log", "reconcile")
    assert broken.exit_code == 3
    assert "decisions.jsonl:1" in broken.output
