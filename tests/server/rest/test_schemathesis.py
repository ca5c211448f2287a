"""Schemathesis finds nothing: a real server answers as openapi.json says, whatever is sent."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from loragate_server.testing import ServerProcess
from testkit.waiting import at_most

ROOT = Path(__file__).parents[3]
SETTINGS = Path(__file__).with_name("schemathesis.toml")


def test_no_request_gets_an_answer_that_is_not_described(
    server: ServerProcess, tmp_path: Path
) -> None:
    run(server, tmp_path, "--phases=fuzzing", "--max-examples=5", limit_s=20)


@pytest.mark.long
def test_nor_does_one_of_many_requests(server: ServerProcess, tmp_path: Path) -> None:
    run(server, tmp_path, "--max-examples=20", limit_s=60)


def run(server: ServerProcess, folder: Path, *options: str, limit_s: float) -> None:
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(SETTINGS), "run"]
    done = subprocess.run(
        [*command, f"http://{server.http}/openapi.json", *options],
        cwd=folder,  # it leaves files behind
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True,
        text=True,
        timeout=at_most(limit_s),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "9 selected / 9 total" in done.stdout
