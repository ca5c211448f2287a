"""A decision of a real server, with a tree over its log, is made again to the last bit."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from loragate import AuditClient
from loragate_server.config.schema import EMBEDDED_POLICY
from loragate_server.testing import environment
from testkit.checkpoints import make_key
from testkit.servers import forked_command, forked_server

ONE, LEARNED = "harmless-watermelon.safetensors", "learned-father-christmas.safetensors"
"""Those of the examples that are audited soonest."""


@dataclass(frozen=True)
class Past:
    """A server that has gone, and what it left."""

    state: Path
    settings: dict[str, str]
    decisions: dict[str, str]

    def run(self, *words: object, **settings: str) -> tuple[int, str, str]:
        named = {**self.settings, **{f"LORAGATE_{k}": v for k, v in settings.items()}}
        done = forked_command([str(word) for word in words], environment(self.state, named))
        return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Past:
    state = tmp_path_factory.mktemp("past")
    key, _ = make_key(state, "log-key")
    settings = {
        "LORAGATE_INTAKE__ROOTS": f'["{root}"]',
        "LORAGATE_THREADS": "1",
        "LORAGATE_CHECKPOINTS__ENABLED": "true",
        "LORAGATE_CHECKPOINTS__KEY": json.dumps({"id": key.id, "file": str(key.file)}),
        "LORAGATE_CHECKPOINTS__INTERVAL_S": "0.2",
    }
    decisions = {}
    with (
        forked_server(state, settings) as server,
        AuditClient(server.grpc, on_unavailable="raise", timeout=120) as client,
    ):
        decisions["one"] = client.audit(root / ONE, strength=0.75).decision_id
        decisions["learned"] = client.audit(root / LEARNED, strength=0.5, dry_run=True).decision_id
    return Past(state, settings, decisions)


@pytest.mark.parametrize("which", ["one", "learned"])
def test_a_decision_is_made_again_to_the_last_bit(past: Past, which: str) -> None:
    code, out, errors = past.run("replay", "--exact", past.decisions[which])
    assert code == 0, errors
    assert "the same to the last bit" in out


def test_the_decision_is_in_a_checkpoint_that_the_server_made(past: Past) -> None:
    code, proof, errors = past.run("log", "prove", past.decisions["one"])
    assert code == 0, errors
    file = past.state / "one.tlog-proof"
    file.write_text(proof)
    code, line, errors = past.run("log", "check", file)
    assert code == 0, errors
    assert json.loads(line)["verdict"]["decision_id"] == past.decisions["one"]
    assert past.run("log", "verify", "--checkpoint", past.state / "decisions.jsonl.tree")[0] == 0


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"THREADS": "2"}, "the number of threads (set `threads`) was 1 and is 2"),
        ({"BASE_MODELS": "other"}, "base model emoji-tiny is not configured, only other"),
        ({"POLICY": "other"}, "the policy was "),
    ],
    ids=["threads", "base model", "policy"],
)
def test_what_keeps_a_decision_from_being_made_again_is_named(
    past: Past, tmp_path: Path, settings: dict[str, str], named: str
) -> None:
    if "POLICY" in settings:
        policy = tmp_path / "policy.yaml"
        policy.write_text(f"# another\n{EMBEDDED_POLICY.read_text()}")
        settings = {"POLICY": str(policy)}
    if "BASE_MODELS" in settings:
        settings = {"BASE_MODELS": '[{"name": "other", "folder": "/nowhere"}]'}
    code, out, errors = past.run("replay", "--exact", past.decisions["one"], **settings)
    assert (code, out) == (3, "")
    assert named in errors


def test_bytes_that_are_gone_or_were_changed_are_named(past: Past) -> None:
    files = sorted((past.state / "store").rglob("*.safetensors"))
    kept = {file: file.read_bytes() for file in files}
    try:
        for file in files:
            file.chmod(0o644)
            file.write_bytes(kept[file] + b" ")
        code, _, errors = past.run("replay", "--exact", past.decisions["one"])
        assert (code, "the stored bytes of adapter" in errors) == (3, True)
        for file in files:
            file.unlink()
        code, _, errors = past.run("replay", "--exact", past.decisions["one"])
        assert (code, "are gone" in errors) == (3, True)
    finally:
        for file, data in kept.items():
            file.unlink(missing_ok=True)
            file.write_bytes(data)


@contextmanager
def bent(past: Past, decision_id: str) -> Iterator[dict[str, Any]]:
    """A recorded decision to be changed; the change is in the database inside the block."""
    with sqlite3.connect(past.state / "loragate.sqlite3") as database:
        (before,) = database.execute(
            "select payload from audits where decision_id = ?", (decision_id,)
        ).fetchone()

        def write(payload: str) -> None:
            change = "update audits set payload = ? where decision_id = ?"
            database.execute(change, (payload, decision_id))
            database.commit()

        payload = json.loads(before)
        try:
            yield payload
            write(json.dumps(payload))
            code, out, errors = past.run("replay", "--exact", decision_id)
            payload.update(code=code, out=out, errors=errors)
        finally:
            write(before)


def test_a_record_that_was_changed_is_told_by_what_differs(past: Past) -> None:
    with bent(past, past.decisions["one"]) as payload:
        payload["decision"]["evidence"]["concepts"][0]["score"] += 1e-12
    assert payload["code"] == 1
    assert "decision.evidence.concepts[0].score: recorded " in payload["errors"]


def test_a_record_that_says_that_nothing_was_audited_is_not_taken_at_its_word(past: Past) -> None:
    """Else its numbers would be judged again instead of measured."""
    with bent(past, past.decisions["one"]) as payload:
        payload["decision"]["evidence"]["machine"] = None
    assert (payload["code"], payload["out"]) == (1, "")
    assert "no audit was run, now the deny list has no adapter of it" in payload["errors"]


def test_a_decision_that_is_not_on_record_is_a_failure(past: Past) -> None:
    code, _, errors = past.run("replay", "--exact", "0" * 32)
    assert code == 3
    assert "0" * 32 in errors
    assert past.run("replay")[0] == 2
