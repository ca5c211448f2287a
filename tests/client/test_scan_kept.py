"""What scans keep: the same answer again while nothing has changed, and never after that."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from loragate import AuditClient, Verdict
from loragate.cli.adapter_files import FoundFile
from loragate.cli.engine_config import EngineSettings
from loragate.cli.fingerprint import fingerprint
from loragate.cli.kept import NAME, KeptAnswers, result_from
from loragate.cli.outcome import Outcome
from loragate.cli.output import as_json, json_line
from loragate.reference import AuditOptions
from loragate.results import AuditResult
from loragate.testing import FakeAuditServer
from tests.client.scans import HARMLESS, LEARNED, scan

ASKED: AuditOptions = {"loader": "", "strength": None, "text_encoder_strength": None}


@pytest.fixture
def file(tmp_path: Path) -> FoundFile:
    shutil.copy(HARMLESS, path := tmp_path / "a.safetensors")
    return FoundFile(path, "a.safetensors")


@pytest.fixture
def answer(file: FoundFile, fake: FakeAuditServer) -> AuditResult:
    """What a service answers about the file, good for an hour."""
    with AuditClient(fake.target, on_unavailable="raise") as client:
        result = client.audit_file(file.path)
    return replace(result, expires_at=datetime.now(UTC) + timedelta(hours=1), audited_bytes=None)


@pytest.fixture
def keep(tmp_path: Path, file: FoundFile) -> Callable[..., None]:
    """Keeps an answer as a scan does."""

    def keep(result: AuditResult, found: FoundFile = file, mark: str = "mark") -> None:
        kept = KeptAnswers.read(tmp_path, mark)
        kept.begin()
        kept.keep(Outcome(found, result, None, 0.0), ASKED, kept.beside)
        kept.end()

    return keep


def kept_answer(file: FoundFile, mark: str = "mark", **asked: Any) -> AuditResult | None:
    kept = KeptAnswers.read(file.path.parent, mark)
    return kept.answer(file, {**ASKED, **asked})  # type: ignore[typeddict-item]


def test_an_answer_is_given_again_as_it_was(
    file: FoundFile, answer: AuditResult, keep: Callable[..., None]
) -> None:
    assert result_from(json.loads(json_line(as_json(answer)))) == answer
    assert kept_answer(file) is None
    keep(answer)
    assert kept_answer(file) == replace(answer, cached=True)
    again = kept_answer(file)
    assert again is not None
    assert again.allowed


def test_another_question_file_or_engine_has_no_answer(
    file: FoundFile, answer: AuditResult, keep: Callable[..., None]
) -> None:
    keep(answer)
    assert kept_answer(file, strength=0.5) is None
    assert kept_answer(file, loader="comfyui") is None
    assert kept_answer(file, "another mark") is None
    assert kept_answer(replace(file, uri="s3://bucket/a.safetensors")) is None
    data = bytearray(file.path.read_bytes())
    data[-1] ^= 1
    file.path.write_bytes(data)
    assert kept_answer(file) is None


@pytest.mark.parametrize(
    "change",
    [
        {"expires_at": datetime.now(UTC) - timedelta(seconds=1)},
        {"binding": False},
        {"dry_run": True, "binding": False},
    ],
)
def test_an_answer_on_which_no_load_may_rest_is_not_given_again(
    file: FoundFile, answer: AuditResult, keep: Callable[..., None], change: dict[str, Any]
) -> None:
    keep(replace(answer, **change))
    assert kept_answer(file) is None


def test_what_is_blocked_since_may_have_a_copy_that_was_allowed(
    file: FoundFile, answer: AuditResult, keep: Callable[..., None], tmp_path: Path
) -> None:
    keep(answer)
    other = replace(answer.adapters[0], sha256="ab" * 32)
    (tmp_path / "b.safetensors").write_bytes(b"b")
    block = replace(answer, verdict=Verdict.BLOCK, adapters=(other,))
    keep(block, FoundFile(tmp_path / "b.safetensors", "b", uri="hf://o/n/b.safetensors"))
    assert kept_answer(file) is None
    keep(answer)
    assert kept_answer(file) is not None


def test_a_block_stays_one_whatever_else_is_blocked(
    file: FoundFile, answer: AuditResult, keep: Callable[..., None]
) -> None:
    keep(replace(answer, verdict=Verdict.BLOCK))
    again = kept_answer(file)
    assert again is not None
    assert again.verdict is Verdict.BLOCK


def test_an_address_leaves_no_answer_about_its_bytes(
    file: FoundFile, answer: AuditResult, keep: Callable[..., None]
) -> None:
    keep(answer, replace(file, uri="hf://owner/name/a.safetensors"))
    assert kept_answer(file) is None


@pytest.mark.parametrize("damage", ["{", "[]", '{"format": 2}', "null", ""])
def test_what_cannot_be_read_is_no_answer(
    file: FoundFile, answer: AuditResult, keep: Callable[..., None], damage: str
) -> None:
    keep(answer)
    (file.path.parent / NAME).write_text(damage)
    assert kept_answer(file) is None


def test_a_scan_that_did_not_end_in_order_leaves_nothing_to_rely_on(
    file: FoundFile, answer: AuditResult, keep: Callable[..., None], tmp_path: Path
) -> None:
    keep(answer)
    KeptAnswers.read(tmp_path, "mark").begin()
    assert kept_answer(file) is None


@pytest.mark.parametrize("part", ["base", "library", "policy", "calibration", "state"])
def test_the_fingerprint_sees_what_an_answer_rests_on(tmp_path: Path, part: str) -> None:
    places = {name: tmp_path / name for name in ("base", "library", "policy", "calibration")}
    for name in ("base", "library"):
        (places[name] / "deep").mkdir(parents=True)
        (places[name] / "deep" / "file").write_text("one")
    for name in ("policy", "calibration"):
        places[name].write_text("one")
    settings = EngineSettings(tmp_path / "state", **places)  # type: ignore[arg-type]
    before = fingerprint(settings)
    assert fingerprint(settings) == before
    if part == "state":
        changed = tmp_path / "state" / "calibrations" / "emoji-tiny.json"
        changed.parent.mkdir(parents=True)
        changed.write_text("one")
    else:
        changed = places[part] / "deep" / "file" if places[part].is_dir() else places[part]
        times = changed.stat()
        changed.write_text("two")
        os.utime(changed, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert fingerprint(settings) != before
    assert fingerprint(replace(settings, threads=2)) != fingerprint(settings)


def test_the_second_scan_of_a_file_starts_no_engine_until_the_policy_changes(
    tmp_path: Path,
) -> None:
    words = ("a.safetensors", "--policy", "policy.yaml", "--format", "json")
    shutil.copy(LEARNED, tmp_path / "a.safetensors")
    default = Path(__file__).parents[2] / "server/loragate_server/policy/default_policy.yaml"
    policy = tmp_path / "policy.yaml"
    policy.write_text(default.read_text().replace("on_block: block", "on_block: review"))

    first = scan(*words, home=tmp_path)
    log = tmp_path / "cache" / "loragate" / "scan" / "engine.log"
    started_ns = log.stat().st_mtime_ns
    second = scan(*words, "--fail-on", "review", home=tmp_path)
    third = scan(*words, "--fail-on", "block", home=tmp_path)
    assert [first.returncode, second.returncode, third.returncode] == [2, 2, 0], first.stderr
    assert "1 file: 1 REVIEW (1 as in an earlier scan)" in second.stderr
    assert json.loads(second.stdout) == json.loads(first.stdout) | {"cached": True}
    assert log.stat().st_mtime_ns == started_ns

    policy.write_text(default.read_text())
    fourth = scan(*words, "--fail-on", "block", home=tmp_path)
    assert fourth.returncode == 1
    assert log.stat().st_mtime_ns > started_ns
    assert "as in an earlier scan" not in fourth.stderr


def test_a_policy_that_changes_while_a_scan_runs_leaves_no_answer(tmp_path: Path) -> None:
    default = Path(__file__).parents[2] / "server/loragate_server/policy/default_policy.yaml"
    policy = tmp_path / "policy.yaml"
    shutil.copy(default, policy)
    done = threading.Event()

    def change() -> None:
        text = default.read_text()
        while not done.is_set():
            text += "#\n"
            (partial := tmp_path / "partial").write_text(text)
            partial.replace(policy)  # never half a policy
            time.sleep(0.02)

    words = (HARMLESS, "--policy", policy, "--state", tmp_path / "state")
    changing = threading.Thread(target=change)
    changing.start()
    try:
        assert scan(*words, home=tmp_path).returncode == 0
    finally:
        done.set()
        changing.join()
    assert json.loads((tmp_path / "state" / NAME).read_text())["complete"] is False
