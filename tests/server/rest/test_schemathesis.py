"""Schemathesis finds nothing: a real server answers as openapi.json says, whatever is sent."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from loragate_server.testing import ServerProcess
from testkit.waiting import at_most

ROOT = Path(__file__).parents[3]
SETTINGS = Path(__file__).with_name("schemathesis.toml")


def test_no_request_gets_an_answer_that_is_not_described(
    server: ServerProcess, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(SETTINGS), "run"]
    command += [f"http://{server.http}/openapi.json", "--max-examples=2"]
    command += ["--phases=coverage,fuzzing"]
    done = subprocess.run(
        command,
        cwd=tmp_path,  # it leaves files behind
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True,
        text=True,
        timeout=at_most(40),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "9 selected / 9 total" in done.stdout
