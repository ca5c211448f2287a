"""The client without an event loop is the one with it, by scripts/sync_client.py."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = Path("scripts/sync_client.py")
PACKAGE = Path("client/loragate/__init__.py")
SOURCE = PACKAGE.with_name("aio.py")
TARGET = SOURCE.with_name("client.py")
SETTINGS = Path("pyproject.toml")


def leaves_with(root: Path, *arguments: str) -> int:
    return subprocess.run([sys.executable, str(root / SCRIPT), *arguments]).returncode


def test_the_committed_client_is_fresh() -> None:
    assert leaves_with(ROOT, "--check") == 0


def test_a_change_by_hand_is_found_and_undone(tmp_path: Path) -> None:
    for file in (SCRIPT, SOURCE, TARGET, PACKAGE, SETTINGS):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, tmp_path / file)
    with (tmp_path / TARGET).open("a") as client:
        client.write("# one line more\n")
    assert leaves_with(tmp_path, "--check") == 1
    assert leaves_with(tmp_path) == 0
    assert (tmp_path / TARGET).read_bytes() == (ROOT / TARGET).read_bytes()


def test_the_client_without_an_event_loop_speaks_of_none() -> None:
    text = (ROOT / TARGET).read_text().replace("programs without an event loop", "")
    assert re.findall("(?i)async|await|coroutine|event loop", text) == []
