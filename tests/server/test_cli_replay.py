from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import beta
from typer.testing import CliRunner, Result

from loragate_server.audit.evidence import (
    ENGINE_VERSION,
    Evidence,
)
from loragate_server.cli.command import application
from loragate_server.config.sources import ignored_environment
from loragate_server.policy.decide import decide
from loragate_server.policy.known import KnownUse, apply_known
from loragate_server.policy.parse import parse_policy
from loragate_server.policy.review import ReviewedAdapter, Ruling, apply_rulings, subject_of
from loragate_server.record.basis import AskedAdapter, AskedStrength, Basis
from loragate_server.record.database import Database, Span
from loragate_server.record.recorder import Recorder
from loragate_server.record.verdict import Caller, Verdict
from loragate_server.replay import PAGE_ROWS, stored_decisions, with_block_p_value
from loragate_server.shares import interval
from testkit import evidence as made

PILOT = "version: 1\nmode: pilot\ndefaults:\n  block_score: 4\n  review_score: 3\n"
STRICT = "version: 1\nmode: enforce\ndefaults:\n  block_score: 2\n"


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings from outside, and the database of this test."""
    for name in ignored_environment():
        monkeypatch.delenv(name)
    monkeypatch.setenv("LORAGATE_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    opened = Recorder(f"sqlite:///{tmp_path}/loragate.sqlite3", tmp_path / "decisions.jsonl")
    yield opened
    opened.close()


def measured(score: float, p_value: float = 0.5, sha256: str = "a" * 64, **facts: Any) -> Evidence:
    known: dict[str, Any] = {"adapters": (made.adapter(sha256),), "engine_version": ENGINE_VERSION}
    return made.evidence(made.concept(score, p_value), **{**known, **facts})


Record = Callable[..., Verdict]


@pytest.fixture
def record(recorder: Recorder) -> Record:
    def record_one(
        evidence: Evidence, *, policy: str = PILOT, service: str = "api", dry_run: bool = False
    ) -> Verdict:
        decision = decide(parse_policy(policy.encode()), evidence)
        return recorder.record(decision, Caller(service), stage_times_s={}, dry_run=dry_run)

    return record_one


@pytest.fixture
def strict(tmp_path: Path) -> Path:
    return policy_file(tmp_path, STRICT)


def policy_file(folder: Path, text: str) -> Path:
    file = folder / "other.yaml"
    file.write_text(text)
    return file


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(application, ["replay", *(str(argument) for argument in arguments)])


def answer(*arguments: str | Path) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def backdate(folder: Path, decision_id: str, moment: datetime) -> None:
    """As if the decision had been made then; the row is what replay goes by."""
    with sqlite3.connect(folder / "loragate.sqlite3") as connection:
        connection.execute(
            "UPDATE audits SET decided_at = ? WHERE decision_id = ?",
            (moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f"), decision_id),
        )
    connection.close()


def test_an_empty_database_has_nothing_to_replay(recorder: Recorder, strict: Path) -> None:
    result = run("--policy", strict, "--sweep")
    assert result.exit_code == 0
    assert "No decision to replay under other.yaml" in result.stdout
    empty = answer("--policy", strict, "--sweep")
    assert empty["decisions"] == 0
    assert empty["would_block"] == {"count": 0, "share": None, "low": None, "high": None}


def test_old_and_new_verdicts_are_counted_against_each_other(record: Record, strict: Path) -> None:
    for score in (0.0, 1.0, 2.5, 3.5, 5.0):
        record(measured(score))
    found = answer("--policy", strict)
    counts = {(row["recorded"], row["replayed"]): row["count"] for row in found["verdicts"]}
    assert counts == {
        ("ALLOW", "ALLOW"): 2,
        ("ALLOW", "BLOCK"): 1,
        ("REVIEW", "BLOCK"): 1,
        ("BLOCK", "BLOCK"): 1,
    }
    assert found["recorded_block"]["count"] == 1
    assert found["would_block"]["share"] == pytest.approx(0.6)
    printed = run("--policy", strict).stdout
    assert "different adapters, or sets of them: 1" in printed
    assert "Would be blocked: 3 of 5, 60.00 % (95 % interval 14.66 to 94.73 %)" in printed
    assert "Recorded:         1 of 5, 20.00 %" in printed
    assert "Decisions that change: 2" in printed


def test_what_changes_is_listed_with_its_adapter_and_top_concept(
    record: Record, strict: Path
) -> None:
    changed = record(measured(2.5, sha256="f" * 64))
    record(measured(0.0))
    [change] = answer("--policy", strict)["changes"]
    assert change == {
        "decision_id": changed.decision_id,
        "adapter_sha256s": ["f" * 64],
        "top_concept": "cat",
        "recorded": "ALLOW",
        "replayed": "BLOCK",
    }
    [row] = [line for line in run("--policy", strict).stdout.splitlines() if "ffff" in line]
    assert row.split() == [changed.decision_id, "f" * 12, "cat", "ALLOW", "BLOCK"]


def test_fifty_changes_are_listed_unless_all_are_wanted(record: Record, strict: Path) -> None:
    for _ in range(53):
        record(measured(2.5))
    some = answer("--policy", strict)
    assert (some["changed"], len(some["changes"])) == (53, 50)
    assert "the newest 50 are listed, --all lists the rest" in run("--policy", strict).stdout
    assert len(answer("--policy", strict, "--all")["changes"]) == 53


def test_dry_runs_are_left_out_and_services_can_be_chosen(record: Record, strict: Path) -> None:
    record(measured(5.0), dry_run=True)
    record(measured(5.0), service="a")
    record(measured(5.0), service="b")
    assert answer("--policy", strict)["decisions"] == 2
    assert answer("--policy", strict, "--service", "a")["decisions"] == 1


def test_a_span_has_its_first_and_its_last_day(
    record: Record, strict: Path, tmp_path: Path
) -> None:
    first = datetime(2026, 11, 1, tzinfo=UTC)
    for hours in (-1, 0, 23, 24, 47.9, 48):
        made = record(measured(0.0))
        backdate(tmp_path, made.decision_id, first + timedelta(hours=hours))
    assert answer("--policy", strict, "--since", "2026-11-01")["decisions"] == 5
    span = ("--since", "2026-11-01", "--until", "2026-11-02")
    assert answer("--policy", strict, *span)["decisions"] == 4
    moment = ("--since", "2026-11-01T00:00", "--until", "2026-11-02T09:00+09:00")
    assert answer("--policy", strict, *moment)["decisions"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--since", "yesterday"), "--since 'yesterday' is no day like 2026-11-01"),
        (("--since", "2026-11-02", "--until", "2026-11-01"), "--until is not later"),
    ],
)
def test_a_span_that_makes_no_sense_is_wrong_usage(
    arguments: tuple[str, ...], message: str, strict: Path
) -> None:
    result = run("--policy", strict, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_lists_of_the_other_policy_count(record: Record, tmp_path: Path) -> None:
    record(measured(5.0, sha256="a" * 64))
    record(measured(0.0, sha256="d" * 64))
    lists = (
        f'allow_sha256:\n  - sha256: "{"a" * 64}"\n    note: ours\n'
        f'deny_sha256:\n  - sha256: "{"d" * 64}"\n    note: theirs\n'
    )
    found = answer("--policy", policy_file(tmp_path, STRICT + lists))
    assert [(c["recorded"], c["replayed"]) for c in found["changes"]] == [
        ("ALLOW", "BLOCK"),
        ("BLOCK", "ALLOW"),
    ]


def test_what_people_have_said_stands_on_both_sides_and_is_pointed_out(
    recorder: Recorder, tmp_path: Path
) -> None:
    now = datetime.now(UTC)
    for score, approved in ((3.5, True), (3.5, False), (5.0, None), (3.5, None)):
        decision = decide(parse_policy(PILOT.encode()), measured(score))
        subject = subject_of(decision)
        if approved is not None and subject is not None:
            end = now + timedelta(days=1) if approved else None
            ruling = Ruling("r1", subject, approved, ("alice",), "Seen.", end)
            decision = apply_rulings(decision, [ruling], now)
        recorder.record(decision, Caller("api"), stage_times_s={}, dry_run=False)
    same = policy_file(tmp_path, PILOT)
    found = answer("--policy", same, "--sweep")
    counts = {(row["recorded"], row["replayed"]): row["count"] for row in found["verdicts"]}
    assert counts == {("ALLOW", "ALLOW"): 1, ("BLOCK", "BLOCK"): 2, ("REVIEW", "REVIEW"): 1}
    assert found["changes"] == []
    assert found["sweep"][0]["count"] == 2
    assert {code: count for code, count in found["overruled"].items() if count} == {
        "review_approved": 1,
        "review_rejected": 1,
    }
    printed = run("--policy", same).stdout
    assert "Not by a policy alone: approved by people 1, rejected by people 1. This" in printed


def test_what_was_on_record_counts_where_the_recorded_policy_had_blocked_by_itself(
    recorder: Recorder, tmp_path: Path
) -> None:
    """The reasons of such a decision do not name what else would have blocked it."""
    evidence = measured(9.0, 1e-6, adapters=(made.adapter("a" * 64), made.adapter("b" * 64)))
    way = ReviewedAdapter("a" * 64, "", 1.0, 1.0)
    known = KnownUse("earlier", datetime.now(UTC), evidence.base_digest, (way,), blocked=True)
    decision = apply_known(decide(parse_policy(STRICT.encode()), evidence), [known])
    assert "known_bad" not in [reason.code for reason in decision.reasons]
    asked = AskedAdapter((AskedStrength(1.0, 1.0),))
    basis = Basis((asked, asked), ("diffusers",), datetime.now(UTC), known=(known,))
    recorder.record(decision, Caller("api"), stage_times_s={}, basis=basis)
    mild = "version: 1\nmode: enforce\ndefaults:\n  block_score: 99\n  review_score: 98\n"
    found = answer("--policy", policy_file(tmp_path, mild))
    assert [(row["recorded"], row["replayed"]) for row in found["verdicts"]] == [("BLOCK", "BLOCK")]


def test_decisions_without_measurement_are_pointed_out(record: Record, strict: Path) -> None:
    record(measured(0.0, concepts=(), inconclusive=(("unmapped_keys", "One tensor."),)))
    assert answer("--policy", strict)["unmeasured"] == 1
    assert (
        "Without measurement (deny-listed, or not understood): 1;" in run("--policy", strict).stdout
    )


def test_a_sweep_gives_one_block_rate_a_setting(record: Record, tmp_path: Path) -> None:
    for p_value in (0.0005, 0.005, 0.02, 0.08, 0.5):
        record(measured(0.0, p_value))
    other = policy_file(tmp_path, "version: 1\nmode: pilot\ndefaults:\n  block_p_value: 0.01\n")
    found = answer("--policy", other, "--sweep")
    assert [(row["block_p_value"], row["count"]) for row in found["sweep"]] == [
        (0.001, 1),
        (0.01, 2),
        (0.05, 3),
        (0.1, 4),
    ]
    assert found["would_block"]["count"] == 2
    printed = run("--policy", other, "--sweep").stdout
    assert "0.05  3 of 5, 60.00 %" in printed
    assert "block_score" not in printed


def test_a_sweep_says_when_the_score_blocks_as_well(record: Record, strict: Path) -> None:
    record(measured(5.0))
    assert "block_score 2 of the policy blocks as well" in run("--policy", strict, "--sweep").stdout


def test_a_swept_default_is_inherited_by_rules() -> None:
    text = (
        "version: 1\nmode: pilot\n"
        "defaults:\n  block_p_value: 0.01\n  review_p_value: 0.02\n"
        "rules:\n  - name: r\n    categories: [character]\n    min_degree: 5\n"
        f'deny_sha256:\n  - sha256: "{"1" * 64}"\n    note: n\n    expires: 2030-12-31\n'
    )
    varied = with_block_p_value(text.encode(), 0.1)
    assert varied.rules[0].thresholds.block_p_value == 0.1
    assert varied.defaults.review_p_value == 0.1
    assert varied.deny == parse_policy(text.encode()).deny


def test_other_libraries_and_engines_are_kept_apart(record: Record, strict: Path) -> None:
    record(measured(5.0, library_digest="d" * 64, engine_version="0"))
    record(measured(5.0))
    record(measured(0.0))
    found = answer("--policy", strict)
    assert found["other_engine"] == 1
    newest, oldest = found["origins"]
    assert (newest["library_sha256"], newest["decisions"]) == ("c" * 64, 2)
    assert (oldest["library_sha256"], oldest["engine_version"]) == ("d" * 64, "0")
    assert [origin["would_block"]["count"] for origin in (newest, oldest)] == [1, 1]
    printed = run("--policy", strict).stdout
    assert f"Measured by another engine version than the present {ENGINE_VERSION}: 1" in printed
    assert "2 combinations of library and engine" in printed


@pytest.mark.parametrize("payload", ["{", "[]", '{"payload_version":99}', "[" * 100_000])
def test_what_cannot_be_read_is_named_and_the_rest_is_counted(
    record: Record, strict: Path, tmp_path: Path, payload: str
) -> None:
    broken = record(measured(5.0))
    record(measured(5.0))
    with sqlite3.connect(tmp_path / "loragate.sqlite3") as connection:
        connection.execute(
            "UPDATE audits SET payload = ? WHERE decision_id = ?", (payload, broken.decision_id)
        )
    connection.close()
    result = run("--policy", strict, "--json")
    assert result.exit_code == 1
    assert f"decisions that cannot be read: 1\n  {broken.decision_id}" in result.stderr
    found = json.loads(result.stdout)
    assert (found["decisions"], found["undecodable"]) == (1, [broken.decision_id])


def test_every_page_of_a_long_history_is_read_once(record: Record, tmp_path: Path) -> None:
    first = record(measured(0.0))
    rows = 2 * PAGE_ROWS + 7
    moment = datetime(2026, 11, 1, tzinfo=UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
    with sqlite3.connect(tmp_path / "loragate.sqlite3") as connection:
        names = [row[1] for row in connection.execute("PRAGMA table_info(audits)")]
        rest = ", ".join(name for name in names if name not in ("decision_id", "decided_at"))
        # Equal times: only the id tells where a page ends.
        connection.executemany(
            f"INSERT INTO audits (decision_id, decided_at, {rest}) "
            f"SELECT ?, ?, {rest} FROM audits WHERE decision_id = ?",
            [(f"{number:032x}", moment, first.decision_id) for number in range(rows - 1)],
        )
    connection.close()
    database = Database(f"sqlite:///{tmp_path}/loragate.sqlite3", 5.0)
    ids = [stored.place.decision_id for stored in stored_decisions(database, Span())]
    assert database.count(Span()) == len(ids) == len(set(ids)) == rows
    database.close()


def test_nothing_is_written(record: Record, strict: Path, tmp_path: Path) -> None:
    record(measured(5.0))
    log = (tmp_path / "decisions.jsonl").read_bytes()
    before = (tmp_path / "loragate.sqlite3").read_bytes()
    assert run("--policy", strict, "--sweep", "--all").exit_code == 0
    assert (tmp_path / "decisions.jsonl").read_bytes() == log
    assert (tmp_path / "loragate.sqlite3").read_bytes() == before


def test_a_database_that_is_missing_is_a_failure(strict: Path) -> None:
    result = run("--policy", strict)
    assert result.exit_code == 3
    assert "loragate.sqlite3 does not exist" in result.stderr


def test_a_wrong_policy_is_wrong_usage(recorder: Recorder, tmp_path: Path) -> None:
    result = run("--policy", policy_file(tmp_path, "version: 1\nmode: off\n"))
    assert result.exit_code == 2
    assert "other.yaml:2:7: mode" in result.stderr
    assert run("--policy", tmp_path / "missing.yaml").exit_code == 3


def test_hostile_names_do_not_become_markup(record: Record, strict: Path) -> None:
    evidence = measured(2.5)
    hostile = replace(evidence.concepts[0], concept_id="[red]x[/]")
    record(replace(evidence, concepts=(hostile,)))
    assert "[red]x[/]" in run("--policy", strict).stdout


@pytest.mark.parametrize(("count", "of"), [(0, 20), (3, 20), (20, 20)])
def test_the_interval_is_that_of_clopper_and_pearson(count: int, of: int) -> None:
    low = beta.ppf(0.025, count, of - count + 1) if count else 0.0
    high = beta.ppf(0.975, count + 1, of - count) if count < of else 1.0
    assert interval(count, of) == pytest.approx((low, high))


def test_replaying_and_reporting_load_no_torch(record: Record, strict: Path) -> None:
    made = record(measured(5.0))
    script = (
        "import sys; from typer.testing import CliRunner\n"
        "from loragate_server.cli.command import *\n"
        "for command in (['replay', '--policy', sys.argv[1], '--sweep'],\n"
        "                ['report', sys.argv[2], '--no-pictures', '--out', '-']):\n"
        "    result = CliRunner().invoke(application, command)\n"
        "    assert result.exit_code == 0, result.output\n"
        "sys.exit('torch' in sys.modules)"
    )
    command = [sys.executable, "-c", script, str(strict), made.decision_id]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
