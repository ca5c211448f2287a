"""The start-up door: every file of a folder is decided about or refused, and reported."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes
from xml.etree import ElementTree

import pytest

from loragate import Verdict
from loragate.cli import main
from loragate.reference import INLINE_LIMIT_BYTES
from loragate.testing import FakeAuditServer


@pytest.fixture
def folder(tmp_path: Path, fake: FakeAuditServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Adapters in two levels, with a picture and a model card beside them."""
    monkeypatch.setenv("LORAGATE_TARGET", fake.target)
    loras = tmp_path / "loras"
    (loras / "deep" / "er").mkdir(parents=True)
    for name, verdict in {
        "b-good.safetensors": Verdict.ALLOW,
        "deep/er/bad.SAFETENSORS": Verdict.BLOCK,
        "a-odd.sft": Verdict.REVIEW,
    }.items():
        data = name.encode()
        (loras / name).write_bytes(data)
        fake.verdicts[hashlib.sha256(data).hexdigest()] = verdict
    (loras / "README.md").write_text("A model card")
    (loras / "deep" / "preview.png").write_bytes(b"\x89PNG")
    return loras


def gate(*arguments: object) -> int:
    return main(["gate-dir", *map(str, arguments)])


def printed_objects(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return {line["file"]: line for line in lines}


def test_all_files_are_decided_about_in_the_order_of_their_names(
    folder: Path, fake: FakeAuditServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gate(folder, "--concurrency", 3, "--strength", 0.7, "--dry-run") == 1
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.startswith("FILE")
    assert [row.split()[:2] for row in rows] == [
        ["a-odd.sft", "REVIEW"],
        ["b-good.safetensors", "ALLOW"],
        ["deep/er/bad.SAFETENSORS", "BLOCK"],
    ]
    assert {call.request.adapters[0].denoiser_strength for call in fake.calls} == {0.7}
    assert all(call.request.dry_run for call in fake.calls)


@pytest.mark.parametrize(
    ("left", "code"), [(["b-good.safetensors"], 0), (["a-odd.sft", "b-good.safetensors"], 2)]
)
def test_the_worst_outcome_is_the_exit_code(folder: Path, left: list[str], code: int) -> None:
    for path in folder.rglob("*"):
        if path.is_file() and path.name not in left:
            path.unlink()
    assert gate(folder) == code


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("style.bin", b"", "NOT_SAFETENSORS"),
        ("style.pt", b"", "NOT_SAFETENSORS"),
        ("style.ckpt", b"", "NOT_SAFETENSORS"),
        ("style.gguf", b"", "NOT_SAFETENSORS"),
        ("weights", b"", "NOT_SAFETENSORS"),
        ("style.safetensors.bak", b"", "NOT_SAFETENSORS"),
        ("notes.txt", b"\x80\x04\x95", "PICKLE_REFUSED"),
        ("picture.png", b"PK\x03\x04", "PICKLE_REFUSED"),
    ],
)
def test_what_is_no_safetensors_file_is_refused_unasked(
    folder: Path,
    name: str,
    content: bytes,
    reason: str,
    fake: FakeAuditServer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (folder / name).write_bytes(content)
    assert gate(folder, "--json") == 3
    refused = printed_objects(capsys)[name]
    assert refused["verdict"] is None
    assert refused["error"]["reason"] == reason
    assert len(fake.calls) == 3


def test_what_the_service_refuses_is_an_error_and_not_a_block(
    folder: Path, fake: FakeAuditServer, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.fail_next("PICKLE_REFUSED", message="It is a zip archive.")
    assert gate(folder, "--concurrency", 1) == 3
    printed = capsys.readouterr()
    assert "a-odd.sft                ERROR    PICKLE_REFUSED" in printed.out
    assert "a-odd.sft: [audit] INVALID_ARGUMENT PICKLE_REFUSED: It is a zip" in printed.err


def test_links_and_pipes_are_refused_unless_links_are_followed(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "linked.safetensors").write_bytes(b"linked")
    (folder / "link.safetensors").symlink_to(outside / "linked.safetensors")
    (folder / "link-folder").symlink_to(outside)
    (folder / "loop").symlink_to(folder)
    (folder / "dangling.safetensors").symlink_to(tmp_path / "nowhere")
    os.mkfifo(folder / "pipe.safetensors")
    assert gate(folder, "--json") == 3
    found = printed_objects(capsys)
    for name in ("link.safetensors", "link-folder", "loop", "dangling.safetensors"):
        assert found[name]["error"]["reason"] == "SYMBOLIC_LINK"
    assert found["pipe.safetensors"]["error"]["reason"] == "NOT_A_FILE"
    assert gate(folder, "--json", "--follow-symlinks") == 3
    found = printed_objects(capsys)
    assert found["link.safetensors"]["verdict"] == "ALLOW"
    assert found["link-folder/linked.safetensors"]["verdict"] == "ALLOW"
    assert found["dangling.safetensors"]["error"]["reason"] == "UNREADABLE"
    assert not any(name.startswith("loop/") for name in found)


def test_an_empty_or_missing_folder_is_an_error(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "README.md").write_text("nothing here")
    assert gate(empty) == 3
    assert "--allow-empty accepts it" in capsys.readouterr().err
    assert gate(empty, "--allow-empty") == 0
    assert gate(tmp_path / "missing", "--allow-empty") == 3
    assert "is not a folder" in capsys.readouterr().err


def test_without_a_service_there_is_no_decision_and_nothing_moves(
    folder: Path, fake: FakeAuditServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.stop()
    (folder / "style.ckpt").write_bytes(b"old")
    quarantine, report = tmp_path / "quarantine", tmp_path / "report.sarif"
    assert gate(folder, "--timeout", 1, "--sarif", report) == 3
    results = json.loads(report.read_text())["runs"][0]["results"]
    assert [one["ruleId"] for one in results] == ["no-decision"] * 3 + ["refused"]
    assert "b-good" not in capsys.readouterr().err
    (folder / "style.ckpt").unlink()
    assert gate(folder, "--timeout", 1, "--quarantine", quarantine) == 3
    assert not quarantine.exists()


def test_quarantine_takes_what_is_not_allowed_and_only_when_asked(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "style.ckpt").write_bytes(b"old")
    before = sorted(folder.rglob("*"))
    gate(folder)
    assert sorted(folder.rglob("*")) == before
    quarantine = tmp_path / "quarantine"
    (quarantine).mkdir()
    (quarantine / "style.ckpt").write_bytes(b"from last time")
    assert gate(folder, "--quarantine", quarantine) == 3
    assert "moved deep/er/bad.SAFETENSORS to" in capsys.readouterr().err
    moved = sorted(p.relative_to(quarantine).as_posix() for p in quarantine.rglob("*.*"))
    assert moved[:3] == ["a-odd.sft", "deep/er/bad.SAFETENSORS", "style.ckpt"]
    assert (quarantine / "style.ckpt").read_bytes() == b"from last time"
    assert len(moved) == 4
    assert gate(folder) == 0
    assert gate(folder, "--quarantine", folder / "inside") == 3
    assert "lies inside" in capsys.readouterr().err


def test_sarif_names_everything_but_allow(folder: Path, tmp_path: Path) -> None:
    (folder / "schön \x1b.pt").write_bytes(b"")
    report = tmp_path / "report.sarif"
    assert gate(folder, "--sarif", report) == 3
    log = json.loads(report.read_text(encoding="utf-8"))
    assert log["version"] == "2.1.0"
    (run,) = log["runs"]
    assert [(one["ruleId"], one["level"]) for one in run["results"]] == [
        ("needs-review", "warning"),
        ("concept-learned", "error"),
        ("refused", "error"),
    ]
    rules = {rule["id"] for rule in run["tool"]["driver"]["rules"]}
    assert {one["ruleId"] for one in run["results"]} <= rules
    places = [one["locations"][0]["physicalLocation"] for one in run["results"]]
    assert places[2]["artifactLocation"]["uri"] == "sch%C3%B6n%20%1B.pt"
    assert run["results"][1]["properties"]["concept"] == "forbidden-concept"
    assert run["results"][1]["properties"]["decisionId"] in run["results"][1]["message"]["text"]
    assert run["invocations"] == [{"executionSuccessful": False}]


def test_junit_counts_failures_and_errors(folder: Path, tmp_path: Path) -> None:
    (folder / "schön \x1b&.pt").write_bytes(b"")
    report = tmp_path / "report.xml"
    assert gate(folder, "--junit", report) == 3
    suites = ElementTree.parse(report).getroot()
    (suite,) = suites
    for element in (suites, suite):
        assert [element.get(key) for key in ("tests", "failures", "errors")] == ["4", "2", "1"]
    cases = {case.get("name"): case for case in suite}
    assert list(cases) == [
        "a-odd.sft",
        "b-good.safetensors",
        "deep/er/bad.SAFETENSORS",
        "schön ?&.pt",
    ]
    assert len(cases["b-good.safetensors"]) == 0
    blocked = cases["deep/er/bad.SAFETENSORS"][0]
    assert (blocked.tag, blocked.get("type")) == ("failure", "BLOCK")
    assert "learned forbidden-concept" in (blocked.text or "")
    assert cases["schön ?&.pt"][0].get("type") == "NOT_SAFETENSORS"


ODD = b"caf\xe9-\xff"
"""As older systems wrote names; no UTF-8."""


@pytest.fixture
def oddly_named(folder: Path, fake: FakeAuditServer) -> Path:
    """One blocked adapter that is sent in its request, one that is uploaded, and a model."""
    for path in list(folder.rglob("*.*")):
        path.unlink()
    for name, data in ((b".safetensors", b"small"), (b".sft", bytes(INLINE_LIMIT_BYTES + 1))):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + ODD + name)).write_bytes(data)
        fake.verdicts[hashlib.sha256(data).hexdigest()] = Verdict.BLOCK
    Path(os.fsdecode(os.fsencode(folder) + b"/" + ODD + b".pt")).write_bytes(b"")
    return folder


def test_reports_are_written_of_files_whose_names_are_no_text(
    oddly_named: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sarif, junit = tmp_path / "r.sarif", tmp_path / "r.xml"
    assert gate(oddly_named, "--sarif", sarif, "--junit", junit) == 3
    rows = capsys.readouterr().out.splitlines()[1:]
    assert [row.split()[:2] for row in rows] == [
        ["caf?-?.pt", "ERROR"],
        ["caf?-?.safetensors", "BLOCK"],
        ["caf?-?.sft", "BLOCK"],
    ]
    (run,) = json.loads(sarif.read_bytes())["runs"]
    places = [one["locations"][0]["physicalLocation"] for one in run["results"]]
    assert [unquote_to_bytes(one["artifactLocation"]["uri"]) for one in places] == [
        ODD + b".pt",
        ODD + b".safetensors",
        ODD + b".sft",
    ]
    assert [one["ruleId"] for one in run["results"]] == ["refused", *["concept-learned"] * 2]
    names = [case.get("name") for case in ElementTree.parse(junit).iter("testcase")]
    assert names == ["caf?-?.pt", "caf?-?.safetensors", "caf?-?.sft"]


def test_json_names_the_very_file_whose_name_is_no_text(oddly_named: Path) -> None:
    command = [sys.executable, "-m", "loragate.cli", "gate-dir", oddly_named, "--json"]
    done = subprocess.run(command, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (3, b"")
    found = [os.fsencode(json.loads(line)["file"]) for line in done.stdout.splitlines()]
    assert found == [ODD + b".pt", ODD + b".safetensors", ODD + b".sft"]


def test_a_file_whose_name_is_no_text_is_put_into_quarantine(
    oddly_named: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quarantine = tmp_path / "quarantine"
    assert gate(oddly_named, "--quarantine", quarantine) == 3
    moved = sorted(os.fsencode(path.name) for path in quarantine.iterdir())
    assert moved == [ODD + b".pt", ODD + b".safetensors", ODD + b".sft"]
    assert "moved caf?-?.pt" in capsys.readouterr().err


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_sees_how_far_it_has_come(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    gate(folder)
    assert "2/3 b-good.safetensors" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r\x1b[K")


@pytest.mark.parametrize(
    "config",
    [
        b'{"r": 4, "lora_alpha": 16}',
        b'{"lora_alpha": -4}',
        b'{"r": 4, "lora_alpha": 4, "alpha_pattern": {"attn2": 8}}',
        b'{"r": 4, "lora_alpha": 4, "layers_to_transform": [1]}',
        b"[]",
        b"{",
        b"\xff",
        b" " * 2_000_000,
        None,  # a pipe
    ],
)
def test_weights_that_a_configuration_changes_are_refused_unasked(
    folder: Path, config: bytes | None, fake: FakeAuditServer, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / "adapter_config.json"
    os.mkfifo(path) if config is None else path.write_bytes(config)
    assert gate(folder, "--json") == 3
    found = printed_objects(capsys)
    assert found["b-good.safetensors"]["error"]["reason"] == "CONFIG_BESIDE"
    assert found["deep/er/bad.SAFETENSORS"]["verdict"] == "BLOCK"
    assert len(fake.calls) == 1


def test_a_plain_configuration_changes_nothing(folder: Path) -> None:
    (folder / "deep" / "er" / "bad.SAFETENSORS").unlink()
    (folder / "a-odd.sft").unlink()
    (folder / "adapter_config.json").write_text('{"r": 4, "lora_alpha": 4}')
    assert gate(folder) == 0


def test_what_was_only_asked_for_a_look_lets_nothing_in(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "deep" / "er" / "bad.SAFETENSORS").unlink()
    (folder / "a-odd.sft").unlink()
    for look in (["--dry-run"], ["--concept", "bomb"]):
        sarif, junit = tmp_path / "r.sarif", tmp_path / "r.xml"
        quarantine = tmp_path / "quarantine"
        reports = ["--sarif", sarif, "--junit", junit, "--quarantine", quarantine]
        assert gate(folder, *look, *reports) == 4
        assert "not binding" in capsys.readouterr().out
        (result,) = json.loads(sarif.read_text())["runs"][0]["results"]
        assert (result["ruleId"], result["level"]) == ("not-binding", "note")
        assert ElementTree.parse(junit).getroot().get("failures") == "1"
        assert not quarantine.exists()
