"""Recording, finding and listing, on both kinds of database."""

import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.policy.decision import Mode, VerdictKind
from loragate_server.record.basis import Basis
from loragate_server.record.chain import verify_log
from loragate_server.record.codec import decode_verdict
from loragate_server.record.connect import parse_url
from loragate_server.record.verdict import Caller

CALLER = Caller("forge", "tenant-1", "request-1", "CN=forge")


def test_a_verdict_ends_by_the_moment_at_which_it_was_judged(recorder, decision) -> None:
    """The end of an approval does not move while a decision waits to be recorded."""
    judged_at = datetime.now(UTC) - timedelta(seconds=90)
    basis = Basis((), (), judged_at)
    verdict = recorder.record(decision(), CALLER, stage_times_s={}, basis=basis)
    assert verdict.expires_at - judged_at == timedelta(seconds=3600.5)


def refusal(act, reason: ErrorReason) -> NoDecisionError:
    with pytest.raises(NoDecisionError) as caught:
        act()
    assert caught.value.reason is reason
    return caught.value


def log_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_a_recorded_verdict_is_found_again_and_is_in_the_log(recorder, decision, log_path) -> None:
    before = datetime.now(UTC)
    verdict = recorder.record(decision(), CALLER, stage_times_s={"intake": 0.5}, dry_run=False)
    assert before <= verdict.decided_at <= datetime.now(UTC)
    assert verdict.expires_at - verdict.decided_at == timedelta(seconds=3600.5)
    assert recorder.get(verdict.decision_id) == verdict
    line = log_lines(log_path)[0]
    assert decode_verdict(line["verdict"]) == verdict
    assert (line["kind"], line["binding"]) == ("decision", True)


def test_dry_runs_and_pilot_verdicts_are_recorded_as_not_binding(
    recorder, decision, log_path
) -> None:
    dry = recorder.record(decision(), CALLER, stage_times_s={}, dry_run=True)
    recorder.record(decision(mode=Mode.PILOT), CALLER, stage_times_s={}, dry_run=False)
    assert recorder.get(dry.decision_id).dry_run
    lines = log_lines(log_path)
    assert [line["binding"] for line in lines] == [False, False]
    assert [line["verdict"]["dry_run"] for line in lines] == [True, False]


def test_ids_sort_by_time_and_are_uuids_of_version_7(recorder, decision) -> None:
    ids = []
    for _ in range(3):
        ids.append(recorder.record(decision(), CALLER, stage_times_s={}).decision_id)
        threading.Event().wait(0.002)
    assert ids == sorted(ids)
    assert all(len(i) == 32 and i[12] == "7" and i[16] in "89ab" for i in ids)


def test_an_unknown_id_is_named_in_the_error(recorder) -> None:
    for unknown in ("nope", "", "\x00", "\ud800", "x" * 10_000):
        error = refusal(lambda u=unknown: recorder.get(u), ErrorReason.DECISION_UNKNOWN)
        assert error.metadata["decision_id"] == unknown[:64]


def test_texts_that_databases_dislike_are_recorded_unchanged(recorder, decision) -> None:
    caller = Caller("a\x00b", "\ud800", "é\u2028'; DROP TABLE audits; --", "🙂")
    verdict = recorder.record(decision(text="\x00\udfff"), caller, stage_times_s={})
    assert recorder.get(verdict.decision_id) == verdict


def test_pages_hold_every_decision_once_newest_first(recorder, decision) -> None:
    made = [recorder.record(decision(), CALLER, stage_times_s={}).decision_id for _ in range(7)]
    seen, token, sizes = [], "", []
    while True:
        page, token = recorder.list(3, token)
        sizes.append(len(page))
        seen += [v.decision_id for v in page]
        if not token:
            break
    assert sizes == [3, 3, 1]
    times = [recorder.get(i).decided_at for i in seen]
    assert times == sorted(times, reverse=True)
    assert sorted(seen) == sorted(made)
    assert len(recorder.list()[0]) == 7
    assert recorder.list(7)[1] == ""


def test_decisions_made_while_paging_do_not_shift_the_pages(recorder, decision) -> None:
    for _ in range(4):
        recorder.record(decision(), CALLER, stage_times_s={})
    first, token = recorder.list(2)
    recorder.record(decision(), CALLER, stage_times_s={})
    second, _ = recorder.list(2, token)
    assert len({v.decision_id for v in first + second}) == 4


def test_lists_are_filtered_by_adapter_and_verdict(recorder, decision) -> None:
    a, b = "a" * 64, "b" * 64
    for kind, shas in [
        (VerdictKind.ALLOW, (a,)),
        (VerdictKind.BLOCK, (a, b, a)),
        (VerdictKind.BLOCK, (b,)),
        (VerdictKind.REVIEW, (a,)),
    ]:
        recorder.record(decision(kind, sha256s=shas), CALLER, stage_times_s={})

    def count(**filters: object) -> int:
        return len(recorder.list(**filters)[0])

    assert count(adapter_sha256=a) == 3
    assert count(adapter_sha256=b.upper()) == 2
    assert count(verdict=VerdictKind.BLOCK) == 2
    assert count(adapter_sha256=a, verdict=VerdictKind.BLOCK) == 1
    assert count(verdict=VerdictKind.INCONCLUSIVE) == 0
    assert count(adapter_sha256="\x00") == 0
    page, token = recorder.list(2, adapter_sha256=a)
    rest, end = recorder.list(2, token, adapter_sha256=a)
    assert (len(page), len(rest), end) == (2, 1, "")


def test_a_page_token_that_was_not_made_here_is_refused(recorder, decision) -> None:
    for _ in range(3):
        recorder.record(decision(), CALLER, stage_times_s={})
    _, token = recorder.list(1)
    bad = ["x", "é", token[:-2], token + "A", token.swapcase(), "A" * 40, token + "\n", "=" * 5]
    for wrong in bad:
        refusal(lambda t=wrong: recorder.list(1, t), ErrorReason.PAGE_TOKEN_INVALID)
    refusal(
        lambda: recorder.list(1, token, verdict=VerdictKind.BLOCK), ErrorReason.PAGE_TOKEN_INVALID
    )


def test_page_sizes_have_limits(recorder, decision) -> None:
    for _ in range(101):
        recorder.record(decision(), CALLER, stage_times_s={})
    assert len(recorder.list(0)[0]) == 50
    assert len(recorder.list(1000)[0]) == 100
    refusal(lambda: recorder.list(-1), ErrorReason.REQUEST_INVALID)


def test_threads_may_record_at_once(recorder, decision, log_path) -> None:
    def one(_: int) -> str:
        return recorder.record(decision(), CALLER, stage_times_s={}).decision_id

    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(one, range(40)))
    check = verify_log(log_path)
    assert check.intact
    assert sorted(check.decision_ids) == sorted(ids)
    assert {v.decision_id for v in recorder.list(100)[0]} == set(ids)


def test_a_restart_continues_log_and_database(
    open_recorder, database_url, log_path, decision
) -> None:
    first = open_recorder(database_url, log_path)
    old = first.record(decision(), CALLER, stage_times_s={})
    first.close()
    second = open_recorder(database_url, log_path)
    second.record(decision(), CALLER, stage_times_s={})
    assert second.get(old.decision_id) == old
    assert verify_log(log_path).last.seq == 2


def test_check_is_content_while_everything_works(recorder) -> None:
    recorder.check()


def test_a_log_that_fails_leaves_no_row_behind(recorder, decision, log_path) -> None:
    with log_path.open("ab") as file:
        file.write(b"not ours\n")
    refusal(
        lambda: recorder.record(decision(), CALLER, stage_times_s={}),
        ErrorReason.DECISION_LOG_UNAVAILABLE,
    )
    refusal(recorder.check, ErrorReason.DECISION_LOG_UNAVAILABLE)
    assert recorder.list() == ([], "")


def test_a_commit_that_fails_leaves_a_note_that_nobody_was_answered(
    recorder, database_url, decision, log_path
) -> None:
    engine = create_engine(parse_url(database_url))
    with engine.begin() as connection:
        # A deferred constraint is checked by the commit itself, after the line was logged.
        if connection.dialect.name == "sqlite":
            connection.execute(
                text(
                    "CREATE TABLE extra (id TEXT REFERENCES audits(policy_digest)"
                    " DEFERRABLE INITIALLY DEFERRED)"
                )
            )
            connection.execute(text("CREATE UNIQUE INDEX one ON audits(policy_digest)"))
            connection.execute(
                text(
                    "CREATE TRIGGER spoil AFTER INSERT ON audits"
                    " BEGIN INSERT INTO extra VALUES ('none'); END"
                )
            )
        else:
            connection.execute(
                text(
                    "CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS"
                    " $$ BEGIN RAISE 'spoilt'; END $$"
                )
            )
            connection.execute(
                text(
                    "CREATE CONSTRAINT TRIGGER spoil AFTER INSERT ON audits"
                    " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW"
                    " EXECUTE FUNCTION spoil()"
                )
            )
    engine.dispose()
    refusal(
        lambda: recorder.record(decision(), CALLER, stage_times_s={}),
        ErrorReason.DATABASE_UNAVAILABLE,
    )
    assert recorder.list() == ([], "")
    logged, note = log_lines(log_path)
    assert note["note"] == {
        "code": "not_answered",
        "decision_id": logged["verdict"]["decision_id"],
        "cause": "DATABASE_UNAVAILABLE",
    }


def test_a_damaged_row_is_an_error_and_not_a_verdict(recorder, database_url, decision) -> None:
    verdict = recorder.record(decision(), CALLER, stage_times_s={})
    engine = create_engine(parse_url(database_url))
    for damaged in ("{", "{}", "[]"):
        with engine.begin() as connection:
            connection.execute(text("UPDATE audits SET payload = :p"), {"p": damaged})
        refusal(lambda: recorder.get(verdict.decision_id), ErrorReason.DATABASE_UNAVAILABLE)
    engine.dispose()


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from conftest import _decision
from loragate_server.record.recorder import Recorder
from loragate_server.record.verdict import Caller
recorder = Recorder(sys.argv[1], Path(sys.argv[2]))
while True:
    print(recorder.record(_decision(), Caller(), stage_times_s={}).decision_id, flush=True)
"""


def test_every_answer_before_kill_9_is_in_log_and_database(
    open_recorder, database_url, log_path
) -> None:
    answered: list[str] = []
    here = os.fspath(Path(__file__).parent)
    for run in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, database_url, log_path, here], stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdout is not None
            answered += [writer.stdout.readline().decode().strip() for _ in range(5 + run)]
            writer.send_signal(signal.SIGKILL)
            rest = writer.stdout.read().decode().splitlines(keepends=True)
            answered += [word.strip() for word in rest if word.endswith("\n")]
    recorder = open_recorder(database_url, log_path)
    check = verify_log(log_path)
    assert check.intact
    assert len(answered) >= 18
    assert set(answered) <= set(check.decision_ids)
    stored, token = [], ""
    while True:
        page, token = recorder.list(100, token)
        stored += [v.decision_id for v in page]
        if not token:
            break
    assert set(answered) <= set(stored) <= set(check.decision_ids)


def test_recording_imports_no_torch() -> None:
    code = (
        "import sys, loragate_server.record.recorder;"
        "sys.exit(any(m.split('.')[0] in ('torch', 'numpy', 'grpc') for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
