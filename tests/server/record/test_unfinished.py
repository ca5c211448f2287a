"""A process that is killed between line and row: the next start says so, and allows nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from loragate_server.policy.decision import Decision, Finding, Reason, Remedy, VerdictKind
from loragate_server.record.chain import verify_log
from loragate_server.record.changes.change import (
    CHANGE_NOTE,
    CHANGE_VOID,
    Change,
    ChangeKind,
    ChangeState,
    ChangeStep,
    Proposal,
)
from loragate_server.record.changes.changes import ConceptChanges
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


def notes(log: Path) -> list[dict[str, Any]]:
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


def propose(recorder: Recorder, concept_id: str) -> Change:
    proposal = Proposal(
        ChangeKind.RETIRE, concept_id, "Cat", (), "animal", "high", (), (), (), "d" * 64, True
    )
    return ConceptChanges(recorder).propose(proposal, (), "alice", "Gone.")


def forget(database_url: str, *steps: tuple[str, int]) -> None:
    engine = create_engine(parse_url(database_url))
    with engine.begin() as connection:
        for name, at in steps:
            connection.execute(
                text("DELETE FROM concept_changes WHERE change_id = :name AND position = :at"),
                {"name": name, "at": at},
            )
    engine.dispose()


def test_a_step_of_a_change_of_the_library_that_a_crash_interrupted_is_taken_back(
    database_url: str, log_path: Path, open_recorder: Callable[..., Recorder]
) -> None:
    recorder = open_recorder(database_url, log_path)
    name, rejected = propose(recorder, "cat").change_id, ChangeStep.REJECT
    changes = ConceptChanges(recorder)
    changes.act(name, rejected, person="bob", reason="No.", position=1)
    recorder.close()
    forget(database_url, (name, 1))  # as a kill between line and row leaves it
    wanted = {"change_id": name, "position": 1, "code": CHANGE_VOID, "cause": UNFINISHED}
    recorder = open_recorder(database_url, log_path)
    assert notes(log_path)[-1] == wanted
    assert ConceptChanges(recorder).get(name).state is ChangeState.WAITING
    ConceptChanges(recorder).act(name, rejected, person="bob", reason="No.", position=1)
    recorder.close()
    open_recorder(database_url, log_path)
    assert notes(log_path).count(wanted) == 1
    assert notes(log_path)[-1]["code"] == CHANGE_NOTE


def test_changes_that_a_database_has_lost_are_not_explained_away(
    database_url: str,
    log_path: Path,
    open_recorder: Callable[..., Recorder],
    caplog: pytest.LogCaptureFixture,
) -> None:
    recorder = open_recorder(database_url, log_path)
    lost = [(propose(recorder, concept_id).change_id, 0) for concept_id in ("cat", "dog")]
    recorder.close()
    forget(database_url, *lost)
    open_recorder(database_url, log_path)
    assert [one["code"] for one in notes(log_path)] == [CHANGE_NOTE] * 2
    assert "lacks changes of the library" in caplog.text
