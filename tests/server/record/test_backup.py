"""A backup that is made under load, and what is missing from it is put back from the log."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from loragate_server.cli.command import application
from loragate_server.policy.decision import Decision, Finding, Remedy, VerdictKind
from loragate_server.policy.review import ReviewedAdapter
from loragate_server.record.chain import verify_log
from loragate_server.record.database import Database
from loragate_server.record.fill import fill
from loragate_server.record.known_book import KnownBook
from loragate_server.record.migrate import upgrade
from loragate_server.record.reconcile import reconcile
from loragate_server.record.recorder import Recorder
from loragate_server.record.verdict import Caller
from testkit.waiting import eventually

Backup = Callable[[], str]
"""Makes a backup of the database and restores it; gives the URL of what was restored."""


@pytest.fixture
def backup(database_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Backup:
    def of_sqlite() -> str:
        target = tmp_path / "restored.db"
        with (
            closing(sqlite3.connect(database_url.removeprefix("sqlite:///"))) as running,
            closing(sqlite3.connect(target)) as copy,
        ):
            running.backup(copy)
        return f"sqlite:///{target}"

    def of_postgresql() -> str:
        postgres = request.getfixturevalue("postgres")
        restored = str(postgres.new_database())
        postgres.dump(database_url, tmp_path / "loragate.dump")
        postgres.restore(restored, tmp_path / "loragate.dump")
        return restored

    return of_sqlite if database_url.startswith("sqlite") else of_postgresql


@contextmanager
def load(recorder: Recorder, decision: Decision) -> Iterator[Callable[[], int]]:
    """Callers that ask without pause; gives how many were answered so far."""
    ended = threading.Event()
    answered: list[str] = []

    def ask() -> None:
        while not ended.is_set():
            answered.append(recorder.record(decision, Caller(), stage_times_s={}).decision_id)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield lambda: len(answered)
    finally:
        ended.set()
        for thread in threads:
            thread.join()


@pytest.fixture
def blocking(decision: Callable[..., Decision]) -> Decision:
    made = decision(VerdictKind.BLOCK, sha256s=("b" * 64,))
    [concept] = made.evidence.concepts
    finding = Finding(concept, VerdictKind.BLOCK, Remedy.QUARANTINE)
    return replace(made, findings=(finding,))


def test_a_backup_under_load_restores_and_the_log_fills_the_gap(
    recorder: Recorder,
    decision: Callable[..., Decision],
    blocking: Decision,
    backup: Backup,
    log_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with load(recorder, decision()) as answered:
        assert eventually(lambda: answered() > 20, 30)
        restored_url = backup()
        before = answered()
        assert eventually(lambda: answered() > before + 5, 30)
    blocked = recorder.record(blocking, Caller("images"), stage_times_s={})
    log = Path(shutil.copy(log_path, tmp_path / "copied.jsonl"))
    assert verify_log(log).intact
    written = len(verify_log(log).decision_ids)
    with log.open("ab") as file:
        file.write(b'{"seq":')  # a line that was being written when it was copied
    upgrade(restored_url)
    with closing(Database(restored_url, 5)) as restored:
        gap = reconcile(restored, [log], settle=lambda: None)
        assert gap.equal >= 20
        assert len(gap.differences) > 5
        assert {one.where for one in gap.differences} == {"log"}
        assert blocked.decision_id in {one.id for one in gap.differences}
    monkeypatch.setenv("LORAGATE_DATABASE_URL", restored_url)
    done = CliRunner().invoke(application, ["log", "reconcile", str(log), "--fill"])
    assert done.exit_code == 0, done.output
    assert f"{len(gap.differences)} put into the database" in done.output
    with closing(Database(restored_url, 5)) as restored:
        whole = reconcile(restored, [log])
        assert (whole.equal, whole.differences) == (written, ())
        assert fill(restored, [log], whole.differences) == 0
        known = KnownBook(restored)
        known.refresh()
    ways = [(ReviewedAdapter(one * 64, "", 0.7, 1.0),) for one in "ab"]
    [use] = known.about(ways, blocking.evidence.base_digest)
    assert use.decision_id == blocked.decision_id
    reopened = Recorder(restored_url, log)
    assert reopened.get(blocked.decision_id) == blocked
    reopened.close()


def test_a_start_on_a_backup_of_a_moment_ago_explains_no_block_away(
    recorder: Recorder,
    database_url: str,
    log_path: Path,
    backup: Backup,
    decision: Callable[..., Decision],
    blocking: Decision,
    open_recorder: Callable[..., Recorder],
) -> None:
    recorder.record(decision(), Caller(), stage_times_s={})
    restored = backup()
    answered = recorder.record(blocking, Caller(), stage_times_s={})
    recorder.close()

    again = open_recorder(restored, log_path)

    book = KnownBook(again.database)
    book.refresh()
    assert [use.decision_id for use in book.alone()] == [answered.decision_id]
    found = reconcile(again.database, [log_path], settle=lambda: None)
    assert (found.equal, found.not_answered, found.differences) == (2, 0, ())
