"""`loragate-server log`: checkpoints are made and printed, and lines proved against them."""

from __future__ import annotations

import base64
import json
import socket
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from loragate_server.cli.command import application
from loragate_server.record.chain import Link, digest
from loragate_server.record.codec import to_json
from loragate_server.record.log import DecisionLog
from loragate_server.record.tree.merkle import consistency_proof
from loragate_server.record.tree.tiles import Tiles
from testkit.checkpoints import make_key, make_witness
from testkit.tamper import rechained

DECISIONS = 300


def run(*arguments: object) -> Result:
    return CliRunner().invoke(application, [str(argument) for argument in arguments])


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    """A configuration with a tree that is copied, and a log with decisions of before there was."""
    key, _ = make_key(tmp_path, "log-key")
    file = tmp_path / "loragate.yaml"
    section = {
        "enabled": True,
        "key": {"id": key.id, "file": str(key.file)},
        "copies": [f"file://{tmp_path}/copies"],
    }
    state = tmp_path / "state"
    state.mkdir()
    file.write_text(json.dumps({"state_dir": str(state), "checkpoints": section}))
    return file


def fill(tmp_path: Path, settings: Path, count: int = DECISIONS) -> Path:
    """Writes decisions as a server would that has the tree."""
    made = run("log", "checkpoint", "--config", settings)
    assert made.exit_code == 0, made.output
    path = tmp_path / "state" / "decisions.jsonl"
    from loragate_server.record.chain import verify_log

    log = DecisionLog(path)
    begin = len(verify_log(path).decision_ids)
    for number in range(begin, begin + count):
        log.append_decision({"decision_id": f"d{number}"}, binding=True)
    log.close()
    return path


def test_a_checkpoint_is_printed_copied_and_verified_against(
    tmp_path: Path, settings: Path
) -> None:
    path = fill(tmp_path, settings)
    printed = run("log", "checkpoint", "--config", settings)
    assert printed.exit_code == 0, printed.output
    assert printed.stdout.split("\n")[1] == str(DECISIONS + 1)
    [copy] = (tmp_path / "copies").iterdir()
    assert (copy / "checkpoint").read_text() == printed.stdout

    handed = tmp_path / "handed"
    handed.write_text(printed.stdout)
    places = (handed, copy, f"file://{copy}", tmp_path / "state/decisions.jsonl.tree")
    for place in (*places, tmp_path / "state/decisions.jsonl.tree/checkpoints.jsonl"):
        assert run("log", "verify", "--checkpoint", place, "--config", settings).exit_code == 0

    path.write_bytes(rechained(path.read_bytes().replace(b'"d7"', b'"x7"')))
    assert run("log", "verify", "--config", settings).exit_code == 0
    bent = run("log", "verify", "--checkpoint", handed, "--config", settings)
    assert bent.exit_code == 1
    assert f"{path}:9: is not what {handed} has" in bent.stderr


def test_an_auditor_needs_the_log_a_checkpoint_and_the_public_key(
    tmp_path: Path, settings: Path
) -> None:
    path = fill(tmp_path, settings)
    handed = tmp_path / "handed"
    handed.write_text(run("log", "checkpoint", "--config", settings).stdout)
    elsewhere = tmp_path / "auditor.jsonl"
    elsewhere.write_bytes(path.read_bytes())
    _, public = make_key(tmp_path, "log-key")
    _, other = make_key(tmp_path, "other")
    asked = ("log", "verify", elsewhere, "--checkpoint", handed, "--state-dir", tmp_path / "x")

    unknown = run(*asked)
    assert (unknown.exit_code, "--key" in unknown.stderr) == (2, True)
    assert run(*asked, "--key", public).exit_code == 0
    foreign = run(*asked, "--key", other)
    assert foreign.exit_code == 1
    assert "no key that is trusted has signed" in foreign.stderr
    unseen = run(*asked, "--key", public, "--witness", f"w={other}")
    assert unseen.exit_code == 1
    assert "no witness has signed it (w)" in unseen.stderr
    assert run(*asked, "--key", public, "--witness", "w").exit_code == 2

    elsewhere.write_bytes(b"".join(elsewhere.read_bytes().splitlines(keepends=True)[:-3]))
    cut = run(*asked, "--key", public)
    assert cut.exit_code == 1
    assert "3 were cut off, or the log was rolled back" in cut.stderr


def test_a_witness_that_was_away_is_missed_until_it_has_signed_again(
    tmp_path: Path, settings: Path
) -> None:
    _, log_public = make_key(tmp_path, "log-key")
    witness, public = make_witness(tmp_path, log_public)
    (handed := tmp_path / "checkpoints").mkdir()
    asked = ("log", "verify", "--checkpoint", tmp_path, "--config", settings)
    asked = (*asked, "--witness", f"witness={public}")

    def grown(old: int, *, signed: bool) -> None:
        path = fill(tmp_path, settings, count=3)
        note = run("log", "checkpoint", "--config", settings).stdout
        size = int(note.split("\n")[1])
        if signed:
            tiles = Tiles(Path(f"{path}.tree"), size)
            proof = consistency_proof(tiles.subtree, old, size) if old else []
            lines = "".join(base64.b64encode(one).decode() + "\n" for one in proof)
            note += witness.add(f"old {old}\n{lines}\n{note}".encode()).body
        (handed / str(size)).write_text(note)

    grown(0, signed=True)
    assert run(*asked).exit_code == 0
    grown(4, signed=False)
    away = run(*asked)
    assert away.exit_code == 1
    assert f"{handed}/7:0: no witness has signed it (witness); one has signed that of 4 lines" in (
        away.stderr
    )
    grown(4, signed=True)
    witness.close()
    back = run(*asked)
    assert back.exit_code == 0, back.output

    path = tmp_path / "state" / "decisions.jsonl"
    path.write_bytes(rechained(path.read_bytes().replace(b'"d7"', b'"x7"')))
    assert f"is not what {handed}/10 has" in run(*asked).stderr


def test_lines_that_are_in_no_file_are_told_of(tmp_path: Path, settings: Path) -> None:
    path = fill(tmp_path, settings)
    run("log", "checkpoint", "--config", settings)
    tree = tmp_path / "state/decisions.jsonl.tree"
    asked = ("log", "verify", "--checkpoint", tree, "--config", settings)
    whole = run(*asked)
    assert (whole.exit_code, whole.stderr) == (0, "")
    before = path.read_bytes().splitlines(keepends=True)

    path.write_bytes(b"".join(before[100:]))
    some = run(*asked)
    assert some.exit_code == 0
    assert "the first 100 lines of loragate/" in some.stderr

    # A log that was exchanged for one that only says that it goes on.
    path.unlink()
    log = DecisionLog(path, begin=Link(len(before), digest(before[-1][:-1])))
    log.append_decision({"decision_id": "new"}, binding=True)
    log.close()
    exchanged = run(*asked)
    assert f"the first {len(before)} lines of loragate/" in exchanged.stderr


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+00:00", "0001-01-01T00:00:00+23:00"])
def test_a_time_at_the_edge_of_the_calendar_is_no_way_to_end_the_check(
    tmp_path: Path, settings: Path, time: str
) -> None:
    path = fill(tmp_path, settings, 3)
    run("log", "checkpoint", "--config", settings)
    lines = path.read_bytes().splitlines()
    lines[1:3] = [to_json({**json.loads(line), "time": time}).encode() for line in lines[1:3]]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    tree = tmp_path / "state/decisions.jsonl.tree"
    found = run("log", "verify", "--checkpoint", tree, "--config", settings)
    assert (found.exit_code, found.exception.__class__) == (1, SystemExit)


def test_a_decision_is_proved_to_those_who_have_neither_log_nor_server(
    tmp_path: Path, settings: Path
) -> None:
    fill(tmp_path, settings)
    early = run("log", "prove", "d299", "--config", settings)
    assert early.exit_code == 3
    assert "in no checkpoint yet" in early.stderr
    run("log", "checkpoint", "--config", settings)
    proof = tmp_path / "d7.tlog-proof"
    proof.write_text(run("log", "prove", "d7", "--config", settings).stdout)
    _, public = make_key(tmp_path, "log-key")

    shown = run("log", "check", proof, "--key", public)
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.stdout)["verdict"] == {"decision_id": "d7"}
    assert f"line 8 of {DECISIONS + 1} in loragate/" in shown.stderr

    text = proof.read_text()
    for wrong in (
        text.replace("index 8\n", "index 9\n"),
        text.replace("index 8\n", "index 8\n" + text.split("\n")[3] + "\n"),
        text.replace("extra e", "extra f"),
        text.replace("c2sp.org", "other.org"),
        text.replace(f"\n{DECISIONS + 1}\n", f"\n{DECISIONS + 2}\n"),
        text[: text.rindex("—")],
    ):
        assert wrong != text
        proof.write_text(wrong)
        assert run("log", "check", proof, "--key", public).exit_code == 1, wrong
    assert run("log", "prove", "d9999", "--config", settings).exit_code == 1


def test_a_decision_is_proved_from_a_full_file_of_the_log(tmp_path: Path, settings: Path) -> None:
    path = fill(tmp_path, settings, count=3)
    log = DecisionLog(path, file_bytes=1)
    log.append_decision({"decision_id": "later"}, binding=True)
    log.close()
    assert len(list(path.parent.glob("decisions.jsonl.0*"))) == 1
    run("log", "checkpoint", "--config", settings)
    proved = run("log", "prove", "d1", "--config", settings)
    assert proved.exit_code == 0, proved.output
    proof = tmp_path / "d1.tlog-proof"
    proof.write_text(proved.stdout)
    assert run("log", "check", proof, "--config", settings).exit_code == 0


def test_a_line_of_before_the_tree_is_said_to_have_no_proof(tmp_path: Path, settings: Path) -> None:
    log = DecisionLog(tmp_path / "state" / "decisions.jsonl")
    log.append_decision({"decision_id": "old"}, binding=True)
    log.close()
    fill(tmp_path, settings, count=1)
    refused = run("log", "prove", "old", "--config", settings)
    assert refused.exit_code == 3
    assert "line 1 was written before the log had a tree" in refused.stderr


def test_checkpoints_in_a_place_that_does_not_answer_are_no_sign_of_tampering(
    tmp_path: Path, settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, settings, count=1)
    with socket.socket() as taken:  # bound and never listening, so that nobody answers there
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{taken.getsockname()[1]}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "something")
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        for place in ("s3://audit/loragate", "unheard-of://audit"):
            failed = run("log", "verify", "--checkpoint", place, "--config", settings)
            assert failed.exit_code == 3, failed.output
            assert failed.stderr.startswith(f"loragate-server: {place} cannot be read: ")


def test_a_log_in_the_hands_of_a_server_is_left_to_it(tmp_path: Path, settings: Path) -> None:
    path = fill(tmp_path, settings)
    before = run("log", "checkpoint", "--config", settings)
    log = DecisionLog(path)
    log.append_decision({"decision_id": "later"}, binding=True)
    again = run("log", "checkpoint", "--config", settings)
    log.close()
    assert (again.exit_code, again.stdout) == (0, before.stdout)


def test_a_checkpoint_that_is_not_taken_is_told(tmp_path: Path, settings: Path) -> None:
    (tmp_path / "copies").write_text("a file, where a folder should be")
    failed = run("log", "checkpoint", "--config", settings)
    assert failed.exit_code == 3
    assert f"file://{tmp_path}/copies: " in failed.stderr


def test_without_a_tree_there_is_no_checkpoint(tmp_path: Path) -> None:
    refused = run("log", "checkpoint", "--state-dir", tmp_path)
    assert refused.exit_code == 3
    assert "checkpoints.enabled" in refused.stderr


def test_a_proof_that_no_checkpoint_is_there_for_says_so(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "decisions.jsonl")
    log.append_decision({"decision_id": "d0"}, binding=True)
    log.close()
    refused = run("log", "prove", "d0", "--state-dir", tmp_path)
    assert refused.exit_code == 3
    assert "there is no checkpoint at " in refused.stderr
    assert "checkpoints.enabled is false" in refused.stderr
