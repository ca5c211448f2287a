"""The commands beside `scan`: what is installed and used, what is kept, what a shell completes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

import loragate_server
from loragate import __version__
from loragate.cli import main
from testkit.engines import forking
from tests.client.scans import HARMLESS, scan, surroundings

EMBEDDED = Path(loragate_server.__file__).parent / "assets" / "emoji_tiny"


def run(
    *words: str, home: Path, command: tuple[str, ...] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*(command or forking()), *words],
        cwd=home,
        env=surroundings(home),
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )


def told(done: subprocess.CompletedProcess[str]) -> dict[str, list[Mapping[str, str]]]:
    """What the doctor says in JSON, by what it is about."""
    lines: dict[str, list[Mapping[str, str]]] = {}
    for line in map(json.loads, done.stdout.splitlines()):
        lines.setdefault(line["about"], []).append(line)
    return lines


def test_the_doctor_says_what_is_installed_and_used(tmp_path: Path) -> None:
    done = run("doctor", home=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "loragate: starting the engine; a first start, " in done.stderr
    lines = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
    said = {(state, about): found for state, about, found in lines}
    assert said["ok", "loragate-server"] == __version__
    assert said["ok", "calibration"] == "in force for emoji-tiny"
    assert said["ok", "engine"].startswith("ready after ")
    assert said["ok", "concepts"].startswith("64;")


def test_the_doctor_finds_a_stale_calibration_and_says_what_to_do(tmp_path: Path) -> None:
    shipped = (EMBEDDED / "calibration.json").read_text()
    digest = json.loads(shipped)["binding"]["library_digest"]
    own = tmp_path / "cache" / "loragate" / "scan" / "calibrations" / "emoji-tiny.json"
    own.parent.mkdir(parents=True)
    own.parents[1].chmod(0o700)
    own.write_text(shipped.replace(digest, "0" * 64))
    done = run("doctor", "--json", home=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    _, found = told(done)["calibration"]
    assert found["state"] == "warning"
    assert found["found"].startswith("stale: made for another base model, library")
    assert "loragate-server calibrate" in found["remedy"]
    [engine, warned] = told(done)["engine"]
    assert engine["state"] == "ok"
    assert "is uncalibrated" in warned["found"]

    named = run("doctor", "--json", "--calibration", str(own), home=tmp_path)
    assert named.returncode == 3
    [engine] = told(named)["engine"]
    assert f"the calibration {own} does not fit: the library has changed" in engine["found"]


@pytest.mark.parametrize(
    ("settings", "about", "said"),
    [
        ("[scan]\nbase = 'nowhere'", "settings", "nowhere is no folder"),
        ("[scan]\npolicy = '.loragate.toml'", "engine", "policy: "),
        ("[scan", "settings", "is no TOML"),
    ],
)
def test_the_doctor_fails_where_a_scan_would(
    tmp_path: Path, settings: str, about: str, said: str
) -> None:
    (tmp_path / ".loragate.toml").write_text(settings)
    done = run("doctor", "--json", home=tmp_path)
    assert done.returncode == 3
    [line] = [one for one in told(done)[about] if one["state"] == "problem"]
    assert said in line["found"]
    assert line["remedy"]


def test_the_doctor_names_the_command_for_what_is_not_installed(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom importlib import metadata, util\n"
        "version, spec = metadata.version, util.find_spec\n"
        "def gone(name):\n"
        "    if name in ('loragate-server', 'torch'): raise metadata.PackageNotFoundError\n"
        "    return version(name)\n"
        "metadata.version = gone\n"
        "util.find_spec = lambda n, *a: None if n in ('loragate_server', 's3fs') else spec(n, *a)\n"
        "from loragate.cli import main\nsys.exit(main(['doctor', '--json']))"
    )
    done = run(home=tmp_path, command=(sys.executable, "-c", script))
    assert done.returncode == 3
    for about, state in (("loragate-server", "problem"), ("torch", "problem"), ("s3fs", "warning")):
        [line] = told(done)[about]
        assert line["state"] == state
        assert line["remedy"].startswith("pip install 'loragate")


def test_the_cache_is_shown_and_cleared_and_nothing_else_is_touched(tmp_path: Path) -> None:
    assert scan(HARMLESS, home=tmp_path).returncode == 0
    state = tmp_path / "cache" / "loragate" / "scan"
    (state / "notes.txt").write_text("mine")
    shown = run("cache", "show", home=tmp_path).stdout
    assert shown.startswith(f"record  {state}, ")
    assert "KiB" in shown
    cleared = run("cache", "clear", home=tmp_path)
    assert cleared.returncode == 0, cleared.stderr
    assert {path.name for path in state.iterdir()} == {"lock", "notes.txt"}
    refused = run("cache", "clear", "--probes", home=tmp_path)
    assert refused.returncode == 3
    assert "which others may use. Remove it yourself." in refused.stderr


def test_bash_completes_commands_options_and_values(tmp_path: Path) -> None:
    (bin_folder := tmp_path / "bin").mkdir()
    command = bin_folder / "loragate"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m loragate "$@"\n')
    command.chmod(0o755)
    script = """
    PATH="$1:$PATH"
    eval "$(loragate completion bash)"
    for line in "loragate sc" "loragate scan --fo" "loragate scan --format sa"; do
        COMP_LINE="$line" COMP_POINT=${#line} COMP_TYPE=9
        COMP_WORDS=($line) COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMPREPLY=()
        _python_argcomplete loragate "${COMP_WORDS[-1]}" "${COMP_WORDS[-2]}"
        echo "${COMPREPLY[@]}"
    done
    """
    done = subprocess.run(
        ["bash", "--norc", "-c", script, "bash", str(bin_folder)],
        env=surroundings(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    words = [line.split() for line in done.stdout.splitlines()]
    assert words == [["scan"], ["--follow-symlinks", "--format"], ["sarif"]], done.stderr


def test_a_folder_given_to_audit_is_pointed_to_the_commands_for_folders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", str(tmp_path)]) == 3
    said = capsys.readouterr().err
    assert "`loragate gate-dir` asks the service about a folder" in said
    assert "`loragate scan` needs no service" in said
