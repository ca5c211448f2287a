"""What a shell makes of a variable that is not set is not taken for the present folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from loragate.cli import main

GATE = ("gate-dir", "loras")


@pytest.mark.parametrize(
    "arguments",
    [
        ("audit", ""),
        ("audit", "--embedding", ""),
        ("audit", "one.safetensors", "--save-signed", ""),
        ("audit", "one.safetensors", "--concept", ""),
        ("audit", "one.safetensors", "--require-signature="),
        ("audit", "one.safetensors", "--revoked-key", ""),
        ("get", ""),
        ("gate-dir", ""),
        (*GATE, "--quarantine", ""),
        (*GATE, "--sarif", ""),
        (*GATE, "--junit", ""),
        (*GATE, "--accept-signed", ""),
        ("verify", "", "--file", "one.safetensors"),
        ("verify", "verdict.json", "--file", ""),
        ("scan", ""),
        ("scan", "one.safetensors", ""),
        ("scan", "one.safetensors", "--output", ""),
        ("scan", "one.safetensors", "--settings", ""),
        ("cache", "show", "--state", ""),
        ("cache", "clear", "--state", ""),
    ],
)
def test_an_empty_argument_is_refused(
    arguments: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "loras").mkdir()
    (tmp_path / "one.safetensors").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 3
    assert "is empty; give it a value, or leave it out" in capsys.readouterr().err
    assert (tmp_path / "one.safetensors").exists()


def test_the_decisions_of_a_server_are_never_cleared_as_those_of_a_scan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("decisions.jsonl", "loragate.sqlite3"):
        (tmp_path / name).write_text("decided")
    (tmp_path / "store").mkdir()
    assert main(["cache", "clear", "--state", str(tmp_path)]) == 3
    assert "may be the state directory of a server" in capsys.readouterr().err
    assert len(list(tmp_path.iterdir())) == 3


def test_a_folder_that_no_scan_has_used_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert main(["cache", "clear", "--state", str(tmp_path)]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_device_that_is_none_is_refused_before_an_engine_is_started(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as left:
        main(["scan", "one.safetensors", "--device", "gpu"])
    assert left.value.code == 3
    assert "'gpu' is not cpu, cuda, or one such as cuda:1" in capsys.readouterr().err
