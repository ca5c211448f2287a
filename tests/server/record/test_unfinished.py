"""A process that is killed between line and row: the next start says so, and allows nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from loragate_server.policy.decision import Decision, Finding, Reason, Remedy, VerdictKind
from loragate_server.record.chain import verify_log
from loragate_server.record.connect import parse_url
from loragate_server.record.reconcile import reconcile
from loragate_server.record.recorder import Recorder
from loragate_server.record.reviews.book import ReviewBook
from loragate_server.record.reviews.review import ReviewAction
from loragate_server.record.reviews.reviews import ReviewRules, Reviews
from loragate_server.record.unfinished import UNFINISHED
from loragate_server.record.verdict import Caller

KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from conftest import _decision
from loragate_server.record.recorder import Recorder
from loragate_server.record.verdict import Caller
recorder = Recorder(sys.argv[1], Path(sys.argv[2]))
for _ in range(3):
    recorder.record(_decision(), Caller(), stage_times_s={})
really = recorder.log.append_decision
def append_and_die(*arguments, **options):
    really(*arguments, **options)
    os.kill(os.getpid(), signal.SIGKILL)
recorder.log.append_decision = append_and_die
recorder.record(_decision(), Caller(), stage_times_s={})
"""


def notes(log: Path) -> list[dict[str, str]]:
    entries = map(json.loads, log.read_bytes().splitlines())
    return [entry["note"] for entry in entries if entry["kind"] == "note"]


def kill_between_line_and_row(database_url: str, log_path: Path) -> None:
    here = str(Path(__file__).parent)
    done = subprocess.run([sys.executable, "-c", KILLED, database_url, log_path, here], check=False)
    assert done.returncode == -9
    assert len(verify_log(log_path).decision_ids) == 4


def test_the_next_start_notes_what_nobody_was_answered_with(
    database_url: str, log_path: Path, open_recorder: Callable[..., Recorder]
) -> None:
    kill_between_line_and_row(database_url, log_path)
    killed = verify_log(log_path).decision_ids[-1]
    recorder = open_recorder(database_url, log_path)
    assert notes(log_path) == [{"code": UNFINISHED, "id": killed}]
    assert verify_log(log_path).intact
    found = reconcile(recorder.database, [log_path], settle=lambda: None)
    assert (found.equal, found.not_answered, found.differences) == (3, 1, ())
    recorder.close()
    open_recorder(database_url, log_path)
    assert len(notes(log_path)) == 1


@pytest.mark.parametrize("lost", ["all", "what is older than any crash"])
def test_a_database_that_lacks_more_than_a_crash_leaves_is_not_explained_away(
    database_url: str,
    log_path: Path,
    open_recorder: Callable[..., Recorder],
    decision: Callable[..., Decision],
    caplog: pytest.LogCaptureFixture,
    lost: str,
) -> None:
    recorder = open_recorder(database_url, log_path)
    ids = [recorder.record(decision(), Caller(), stage_times_s={}).decision_id for _ in range(3)]
    recorder.close()
    engine = create_engine(parse_url(database_url))
    with engine.begin() as connection:
        if lost == "all":
            connection.execute(text("DELETE FROM audits"))
        else:
            connection.execute(text("DELETE FROM audits WHERE decision_id = :id"), {"id": ids[0]})
    engine.dispose()
    if lost != "all":
        first, *others = log_path.read_bytes().splitlines(keepends=True)
        entry = json.loads(first)
        aged = {**entry, "time": "2020-01-01T00:00:00+00:00"}
        log_path.write_bytes(json.dumps(aged).encode() + b"\n" + b"".join(others))
    recorder = open_recorder(database_url, log_path)
    assert notes(log_path) == []
    assert "log reconcile" in caplog.text
    found = reconcile(recorder.database, [log_path], settle=lambda: None)
    assert len(found.differences) == (3 if lost == "all" else 1)


@pytest.mark.parametrize("taken", [False, True])
def test_a_rejection_is_put_back_unless_another_review_has_its_place(
    database_url: str,
    log_path: Path,
    open_recorder: Callable[..., Recorder],
    decision: Callable[..., Decision],
    taken: bool,
) -> None:
    recorder = open_recorder(database_url, log_path)
    made = decision(VerdictKind.REVIEW)
    [concept] = made.evidence.concepts
    suspected = replace(
        made,
        evidence=replace(made.evidence, inconclusive=()),
        reasons=(Reason("concept_learned", "It may have learned 'Cat'."),),
        findings=(Finding(concept, VerdictKind.REVIEW, Remedy.QUARANTINE),),
    )
    verdict = recorder.record(suspected, Caller(), stage_times_s={})
    rules = ReviewRules(frozenset(), timedelta(days=30))
    reviews = Reviews(recorder, rules, told=lambda _: None)

    def act(action: ReviewAction, expires_at: datetime | None = None) -> None:
        reviews.act(
            verdict.decision_id, action, reviewer="alice", reason="so", position=0,
            expires_at=expires_at,
        )  # fmt: skip

    act(ReviewAction.REJECT)
    engine = create_engine(parse_url(database_url))
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM reviews"))
    engine.dispose()
    lines = log_path.read_bytes()
    if taken:
        act(ReviewAction.APPROVE, datetime.now(UTC) + timedelta(days=1))
        log_path.write_bytes(lines)  # of another replica, which has a log of its own
    recorder.close()

    again = open_recorder(database_url, log_path)

    book = ReviewBook(again.database)
    book.refresh()
    [ruling] = book.about([verdict.decision.evidence.adapters[0].sha256])
    assert ruling.approved == taken
    assert len(notes(log_path)) == taken
