"""`loragate scan` with its real engine: verdicts, what it leaves behind, and how it ends."""

from __future__ import annotations

import csv
import io
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import loragate_server
from loragate import AuditClient
from testkit.engines import COLD, forking
from testkit.servers import forked_server
from tests.client.scans import (
    ADAPTERS,
    HARMLESS,
    LEARNED,
    at_a_terminal,
    processes_below,
    scan,
    surroundings,
)


@pytest.fixture
def loras(tmp_path: Path) -> Path:
    """A forbidden and a harmless adapter, and a pickle beside them."""
    folder = tmp_path / "loras"
    (folder / "deep").mkdir(parents=True)
    shutil.copy(HARMLESS, folder / "deep" / "harmless.safetensors")
    shutil.copy(LEARNED, folder / "learned.safetensors")
    (folder / "old.pt").write_bytes(b"\x80\x02")
    (folder / "README.md").write_text("cards are passed over")
    return folder


def sockets_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_socket()]


def test_a_folder_has_the_verdicts_of_a_live_server_and_nothing_stays(
    loras: Path, tmp_path: Path
) -> None:
    done = scan("loras", "--format", "json", home=tmp_path)
    said = {line["file"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert done.returncode == 3, done.stderr
    assert list(said) == [
        "loras/deep/harmless.safetensors",
        "loras/learned.safetensors",
        "loras/old.pt",
    ]
    assert said["loras/old.pt"]["error"]["reason"] == "NOT_SAFETENSORS"
    assert "3 files: 1 ALLOW, 1 BLOCK, 1 ERROR" in done.stderr
    [line] = (line for line in done.stderr.splitlines() if "starting the engine" in line)
    assert line.startswith("loragate: starting the engine; a first start, or one after a change,")
    rows = csv.DictReader(io.StringIO(scan("loras", "--format", "csv", home=tmp_path).stdout))
    for row, line in zip(rows, said.values(), strict=True):
        top = line["findings"][0] if "findings" in line else {}
        for column in ("p_value", "library_p_value"):
            assert row[column] == (f"{top[column]:.6g}" if top else ""), (row, column)

    (state := tmp_path / "server").mkdir()
    with forked_server(state) as server, AuditClient(server.grpc, timeout=120) as client:
        for name in ("deep/harmless.safetensors", "learned.safetensors"):
            live, found = client.audit_file(loras / name), said[f"loras/{name}"]
            assert found["verdict"] == live.verdict
            assert found["allowed"] == live.allowed
            assert found["digests"]["library"] == live.digests.library
            assert found["engine_version"] == live.engine_version
            measured = [
                (one.concept_id, one.score, one.p_value, one.degree) for one in live.findings
            ]
            assert measured == [
                (one["concept_id"], one["score"], one["p_value"], one["degree"])
                for one in found["findings"]
            ]
    assert sockets_below(tmp_path) == []
    assert processes_below(tmp_path) == []
    state = tmp_path / "cache" / "loragate" / "scan"
    assert state.stat().st_mode & 0o077 == 0


def test_settings_of_servers_and_clients_mean_nothing_to_a_scan(tmp_path: Path) -> None:
    variables = {
        "LORAGATE_TARGET": "nobody.invalid:1",
        "LORAGATE_BASE_MODEL": "sdxl",
        "LORAGATE_BASE_DIGEST": "0" * 64,
        "LORAGATE_POLICY": "/nonexistent.yaml",
        "LORAGATE_DATABASE_URL": "postgresql://nobody.invalid/loragate",
    }
    # A path too long for a socket; and a module in the present folder that is not to be loaded:
    # the engine is started as a person's is.
    state = tmp_path / ("long" * 30)
    (tmp_path / "torch.py").write_text("raise SystemExit('a stranger runs in the engine')")
    done = scan(HARMLESS, "--state", state, home=tmp_path, variables=variables, command=COLD)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1].split()[:2] == [str(HARMLESS), "ALLOW"]
    assert (state / "decisions.jsonl").exists()
    assert sockets_below(tmp_path) == []


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_engine_ends_with_the_scan_however_that_ends(
    tmp_path: Path, how: signal.Signals
) -> None:
    state = tmp_path / "state"
    command = COLD if how is signal.SIGKILL else forking()
    with subprocess.Popen(
        # All examples, so that it is still at work when the signal comes, however late that is.
        # A job in the background of a shell ignores SIGINT, and so does all that it starts.
        [
            "env",
            "--default-signal=INT",
            *command,
            "scan",
            str(LEARNED.parent),
            "--state",
            str(state),
        ],
        cwd=tmp_path,
        env=surroundings(tmp_path),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        wait_for(lambda: "ready" in read(state / "engine.log"))
        process.send_signal(how)
        code = process.wait(timeout=60)
    assert code == {signal.SIGINT: 130, signal.SIGTERM: 143}.get(how, -how)
    wait_for(lambda: not processes_below(state))
    if how is not signal.SIGKILL:
        assert sockets_below(tmp_path) == []


def read(file: Path) -> str:
    return file.read_text() if file.exists() else ""


def wait_for(condition: object) -> None:
    for _ in range(1200):
        if condition():  # type: ignore[operator]
            return
        time.sleep(0.05)
    raise AssertionError("it did not come about within a minute")


def test_what_keeps_the_engine_from_starting_is_said_in_its_words(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text("mode: sometimes\n")
    done = scan(HARMLESS, "--policy", "policy.yaml", home=tmp_path)
    assert done.returncode == 3
    assert "The engine did not start: " in done.stderr
    assert "policy.yaml" in done.stderr
    assert "mode" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert processes_below(tmp_path) == []


def test_a_state_folder_into_which_others_may_write_is_refused(tmp_path: Path) -> None:
    (state := tmp_path / "open").mkdir()
    state.chmod(0o777)
    done = scan(HARMLESS, "--state", state, home=tmp_path)
    assert done.returncode == 3
    assert "others may write into it" in done.stderr
    assert list(state.iterdir()) == []


def test_without_the_engine_the_command_to_install_it_is_named(tmp_path: Path) -> None:
    package = Path(__file__).parents[2] / "client"
    only = tmp_path / "only-the-client"
    shutil.copytree(package / "loragate", only / "loragate")
    script = (
        "import sys, importlib.util as u; real = u.find_spec\n"
        "u.find_spec = lambda n, *a: None if n == 'loragate_server' else real(n, *a)\n"
        "from loragate.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "scan", str(HARMLESS)],
        cwd=tmp_path,
        env=surroundings(tmp_path, PYTHONPATH=str(only)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 3
    assert "pip install 'loragate[scan]'" in done.stderr


def test_the_worst_of_all_shipped_adapters_is_a_block(tmp_path: Path) -> None:
    report = tmp_path / "all.sarif"
    words = ("--format", "sarif", "--output", report)
    done = scan(
        f"{ADAPTERS}/**/learned-bomb*",
        ADAPTERS / "harmless-watermelon.safetensors",
        *words,
        home=tmp_path,
    )
    assert done.returncode == 1, done.stderr
    assert "BLOCK" in done.stdout
    [result] = json.loads(report.read_text())["runs"][0]["results"]
    assert result["ruleId"] == "concept-learned"
    assert result["properties"]["concept"] == "bomb"


def test_base_library_calibration_and_use_come_from_the_settings_file(tmp_path: Path) -> None:
    embedded = Path(loragate_server.__file__).parent / "assets" / "emoji_tiny"
    (rules := tmp_path / "rules").mkdir()
    shutil.copytree(embedded / "pipeline", rules / "our base")
    shutil.copytree(embedded / "concepts", rules / "concepts")
    shutil.copy(embedded / "calibration.json", rules / "our.json")
    (tmp_path / ".loragate.toml").write_text(
        '[scan]\nbase = "rules/our base"\nlibrary = "rules/concepts"\n'
        'calibration = "rules/our.json"\nloader = "diffusers"\nstrength = 0.5\ndevice = "cpu"\n'
        'threads = 2\nstate = "record"\ntimeout = 300\nformat = "json"\n'
    )
    (below := tmp_path / "below").mkdir()
    done = scan(HARMLESS, "--verbose", home=tmp_path, within=below)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["verdict"], said["base_model"]) == ("ALLOW", "our-base")
    assert [one["strength"] for one in said["adapters"]] == [0.5]
    assert "diffusers" in said["loaders"]
    for line in (f"settings: {tmp_path}/.loragate.toml", f"base: {rules}/our base", "the engine"):
        assert f"loragate: {line}" in done.stderr
    assert "warning" not in done.stderr
    assert (tmp_path / "record" / "decisions.jsonl").exists()


def test_a_person_at_a_terminal_sees_how_far_the_engine_and_the_files_are(tmp_path: Path) -> None:
    code, seen = at_a_terminal(HARMLESS, home=tmp_path)
    assert code == 0
    assert "\r\x1b[Kstarting the engine, 0 s: loading" in seen
    assert "loragate: starting the engine" not in seen
    assert f"\x1b[K1/1 {HARMLESS}"[:60] in seen
    table = seen.rpartition("\r\x1b[K")[2]
    assert table.startswith("FILE")
    assert "\x1b[32mALLOW" in table
