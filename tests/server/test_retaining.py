"""The sweep through record, log and store, by the command and by the server itself."""

from __future__ import annotations

import base64
import hashlib
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from typer.testing import CliRunner, Result

from loragate_server.app.preflight import problems, warnings
from loragate_server.app.retaining import Retainer, plan, prune
from loragate_server.cli.command import application
from loragate_server.config.retention import RetentionSection
from loragate_server.config.schema import Config
from loragate_server.config.sources import ignored_environment
from loragate_server.intake.quarantine import opened, sealed_path
from loragate_server.intake.store import ContentStore
from loragate_server.policy.decision import VerdictKind
from loragate_server.record.chain import verify_log
from loragate_server.record.recorder import Recorder
from loragate_server.record.retention.holds import Hold, place
from loragate_server.record.rotation import files_of
from loragate_server.record.verdict import Caller, Verdict
from testkit import evidence as made
from testkit.waiting import eventually

LATER = datetime.now(UTC) + timedelta(days=100)
KEY = base64.b64encode(b"k" * 32)


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ignored_environment():
        monkeypatch.delenv(name)
    monkeypatch.setenv("LORAGATE_STATE_DIR", str(tmp_path / "state"))


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "state").mkdir()
    return Config(state_dir=tmp_path / "state")


@pytest.fixture
def recorder(config: Config) -> Iterator[Recorder]:
    recorder = Recorder(config.database, config.decision_log_file, log_file_bytes=4000)
    yield recorder
    recorder.close()


def ask(recorder: Recorder, sha256: str, kind: VerdictKind = VerdictKind.ALLOW) -> Verdict:
    evidence = made.evidence(made.concept(), adapters=(made.adapter(sha256),))
    decision = made.decision(kind, evidence, would_be_verdict=kind)
    return recorder.record(decision, Caller("images"), stage_times_s={})


def store(config: Config, data: bytes) -> Path:
    content = ContentStore(config.store_folder, 1 << 30)
    file = content.incoming()
    file.write(data)
    return content.adopt(file, hashlib.sha256(data).hexdigest())


def keeping(config: Config, **settings: object) -> Config:
    return config.model_copy(update={"retention": RetentionSection(**settings)})  # type: ignore[arg-type]


def counts(config: Config, now: datetime = LATER) -> dict[str, int]:
    return {str(one.kind): one.count for one in plan(config, now).tallies if one.count}


def test_uploads_go_when_nobody_has_asked_for_so_long(config: Config, recorder: Recorder) -> None:
    old, young = store(config, b"old"), store(config, b"young")
    month = time.time() - 31 * 86_400
    os.utime(old, (month, month))
    wanted = keeping(config, uploads="30d")
    now = datetime.now(UTC)
    assert counts(wanted, now) == {"uploads": 1}
    assert old.exists()
    prune(wanted, now)
    assert not old.exists()
    assert young.exists()


@pytest.mark.parametrize("then", ["keep", "delete", "quarantine"])
def test_blocked_uploads_become_what_the_policy_says(
    config: Config, recorder: Recorder, tmp_path: Path, then: str
) -> None:
    blocked, allowed = store(config, b"blocked"), store(config, b"allowed")
    ask(recorder, blocked.stem, VerdictKind.BLOCK)
    ask(recorder, allowed.stem)
    (key := tmp_path / "key").write_bytes(KEY)
    more = {"quarantine_key_file": key} if then == "quarantine" else {}
    wanted = keeping(config, blocked_uploads=then, **more)
    prune(wanted, LATER)
    assert allowed.exists()
    assert blocked.exists() == (then == "keep")
    sealed = sealed_path(wanted.quarantine_folder, blocked.stem)
    assert sealed.exists() == (then == "quarantine")
    if sealed.exists():
        assert b"".join(opened(sealed, blocked.stem, b"k" * 32)) == b"blocked"


def test_a_file_that_was_allowed_since_is_blocked_no_more(
    config: Config, recorder: Recorder
) -> None:
    file = store(config, b"file")
    ask(recorder, file.stem, VerdictKind.BLOCK)
    ask(recorder, file.stem)
    prune(keeping(config, blocked_uploads="delete"), LATER)
    assert file.exists()


def test_company_that_was_blocked_says_nothing_of_each_file(
    config: Config, recorder: Recorder
) -> None:
    file = store(config, b"file")
    adapters = tuple(made.adapter(one) for one in ("0" * 64, file.stem))
    evidence = made.evidence(made.concept(), adapters=adapters)
    block = made.decision(VerdictKind.BLOCK, evidence)
    recorder.record(block, Caller(), stage_times_s={})
    prune(keeping(config, blocked_uploads="delete"), LATER)
    assert file.exists()


@pytest.mark.parametrize("by", ["sha256", "time"])
def test_a_held_upload_stays(config: Config, recorder: Recorder, by: str) -> None:
    file = store(config, b"file")
    ask(recorder, file.stem, VerdictKind.BLOCK)
    hold = (
        Hold("case", "why", sha256=file.stem)
        if by == "sha256"
        else (Hold("case", "why", since=datetime(2020, 1, 1, tzinfo=UTC)))
    )
    with recorder.database.writing() as connection:
        place(connection, hold, datetime.now(UTC))
    prune(keeping(config, blocked_uploads="delete", uploads="1d"), LATER)
    assert file.exists()


def test_the_server_prunes_its_own_log_and_the_command_leaves_it(
    config: Config, recorder: Recorder, tmp_path: Path
) -> None:
    for number in range(12):
        ask(recorder, f"{number:064x}")
    wanted = keeping(config, decisions="90d", archive=str(tmp_path / "archive"))
    full = len(files_of(wanted.decision_log_file)) - 1
    assert full > 1
    left = prune(wanted, LATER)
    assert "another process" in left.log_left
    assert len(files_of(wanted.decision_log_file)) == full + 1
    done = {str(one.kind): one.count for one in prune(wanted, LATER, recorder.log).tallies}
    assert done["log files"] == full
    assert verify_log(*files_of(wanted.decision_log_file)).intact


def test_the_command_prunes_the_log_of_a_server_that_is_stopped(
    config: Config, recorder: Recorder
) -> None:
    for number in range(12):
        ask(recorder, f"{number:064x}")
    recorder.close()
    assert prune(keeping(config, decisions="90d"), LATER).log_left == ""
    assert files_of(config.decision_log_file) == [config.decision_log_file]
    assert verify_log(config.decision_log_file).intact


def test_the_server_prunes_in_the_background_and_ends(config: Config, recorder: Recorder) -> None:
    one = ask(recorder, "a" * 64)
    _age(config, one)
    retainer = Retainer(keeping(config, decisions="1d", every_s=0.05), recorder.log)
    retainer.start()
    assert eventually(lambda: recorder.list()[0] == [], 20)
    retainer.close()
    assert not retainer._thread.is_alive()


def _age(config: Config, verdict: Verdict) -> None:
    """Makes a recorded decision a year older, in the column that pruning looks at."""
    engine = create_engine(config.database)
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE audits SET decided_at = :at WHERE decision_id = :id"),
            {"at": "2020-01-01 00:00:00.000000", "id": verdict.decision_id},
        )
    engine.dispose()


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(application, [str(word) for word in words])


def test_the_commands_show_a_plan_and_holds_and_keep_to_them(
    config: Config, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LORAGATE_RETENTION__DECISIONS", "1d")
    monkeypatch.setenv("LORAGATE_RETENTION__ARCHIVE", str(tmp_path / "archive"))
    one = ask(recorder, "a" * 64)
    _age(config, one)
    hold = ("retention", "hold")
    placed = run(*hold, "place", "case-17", "--reason", "a letter", "--sha256", "A" * 64)
    assert placed.exit_code == 0, placed.output
    again = run(*hold, "place", "case-17", "--reason", "a letter", "--concept", "bomb")
    assert (again.exit_code, "another name" in again.output) == (2, True)
    planned = run("retention", "plan")
    assert planned.exit_code == 0, planned.output
    assert "decisions: 0 would go" in planned.output
    assert "1 held by case-17" in planned.output
    assert "reviews: kept" in planned.output
    assert run("retention", "prune").exit_code == 0
    assert recorder.get(one.decision_id) == one
    assert run(*hold, "release", "case-17", "--reason", "settled").exit_code == 0
    assert run(*hold, "release", "case-17", "--reason", "settled").exit_code == 2
    assert "released" in run(*hold, "list").output
    assert "decisions: 1 went" in run("retention", "prune").output
    assert recorder.list()[0] == []


def test_a_hold_on_a_concept_that_nobody_knows_is_refused_with_the_nearest_names(
    config: Config, recorder: Recorder
) -> None:
    ask(recorder, "a" * 64, VerdictKind.BLOCK)  # about the concept of the evidence, no other's
    place_hold = ("retention", "hold", "place")
    misspelt = run(*place_hold, "one", "--reason", "r", "--concept", "jack-o-lantren")
    assert misspelt.exit_code == 2
    assert "did you mean jack-o-lantern?" in misspelt.output
    far = run(*place_hold, "one", "--reason", "r", "--concept", "9" * 20)
    assert (far.exit_code, "did you mean" in far.output) == (2, False)
    assert run("retention", "hold", "list").output == ""
    for name, concept in (("one", "jack-o-lantern"), ("two", made.concept().concept_id)):
        placed = run(*place_hold, name, "--reason", "r", "--concept", concept)
        assert placed.exit_code == 0, placed.output
    to_come = run(*place_hold, "three", "--reason", "r", "--concept", "mascot", "--even-if-unknown")
    assert to_come.exit_code == 0, to_come.output


def test_what_is_on_record_may_be_held_where_the_library_cannot_be_read(
    config: Config, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LORAGATE_LIBRARY", str(tmp_path / "gone"))
    ask(recorder, "a" * 64, VerdictKind.BLOCK)
    hold = ("retention", "hold", "place", "one", "--reason", "r", "--concept")
    refused = run(*hold, "bomb")
    assert refused.exit_code == 2
    assert "gone cannot be read" in refused.output
    placed = run(*hold, made.concept().concept_id)
    assert placed.exit_code == 0, placed.output


def test_a_sealed_file_is_opened_by_the_command(
    config: Config, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (key := tmp_path / "key").write_bytes(KEY)
    monkeypatch.setenv("LORAGATE_RETENTION__BLOCKED_UPLOADS", "quarantine")
    monkeypatch.setenv("LORAGATE_RETENTION__QUARANTINE_KEY_FILE", str(key))
    file = store(config, b"blocked")
    ask(recorder, file.stem, VerdictKind.BLOCK)
    assert run("retention", "prune").exit_code == 0
    output = tmp_path / "shown.safetensors"
    assert run("retention", "unseal", file.stem, "--output", output).exit_code == 0
    assert output.read_bytes() == b"blocked"
    assert run("retention", "unseal", file.stem, "--output", output).exit_code == 2
    key.write_bytes(base64.b64encode(b"j" * 32))
    other = run("retention", "unseal", file.stem, "--output", tmp_path / "other")
    assert other.exit_code == 1
    assert not (tmp_path / "other").exists()


def test_a_digest_that_nothing_was_sealed_under_is_told(
    config: Config, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (key := tmp_path / "key").write_bytes(KEY)
    monkeypatch.setenv("LORAGATE_RETENTION__BLOCKED_UPLOADS", "quarantine")
    monkeypatch.setenv("LORAGATE_RETENTION__QUARANTINE_KEY_FILE", str(key))
    output = tmp_path / "shown.safetensors"
    short = run("retention", "unseal", "3b1f", "--output", output)
    assert (short.exit_code, "'3b1f' is no sha256: 64 digits" in short.output) == (2, True)
    unknown = run("retention", "unseal", "b" * 64, "--output", output)
    assert (unknown.exit_code, "has no sealed file bbb" in unknown.output) == (3, True)
    assert not output.exists()


def test_a_quarantine_without_a_key_and_pruning_without_an_archive_are_told(
    config: Config, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="openssl rand"):
        RetentionSection(blocked_uploads="quarantine")
    no_key = keeping(config, blocked_uploads="quarantine", quarantine_key_file=tmp_path / "none")
    assert any("quarantine_key_file" in line for line in problems(no_key))
    assert any("no archive" in line for line in warnings(keeping(config, evidence="1d")))
    assert not any("no archive" in line for line in warnings(config))
