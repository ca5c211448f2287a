"""The lanes of kernel tests: interpreted kernels, and memory that shows what was not written."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leaves tests of interpreted kernels to processes that were started for them.

    Triton chooses its interpreter when it is imported, so these tests have a process of their
    own, with TRITON_INTERPRET=1; the test next to each folder `interpreted` starts it.
    """
    if "interpreted" in collection_path.parts and os.environ.get("TRITON_INTERPRET") != "1":
        return True
    return None


@pytest.fixture
def run_interpreted() -> Callable[[Path, int], None]:
    """Runs a folder of tests in a process whose Triton interprets; so many at least must pass."""

    def run(folder: Path, expected: int) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)],
            env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            check=False,
            text=True,
            timeout=150,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        [passed] = re.findall(r"(\d+) passed", done.stdout)
        assert int(passed) >= expected, done.stdout
        assert "skipped" not in done.stdout

    return run


@pytest.fixture(scope="module")
def compile_apart(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    """Runs a script that compiles kernels, without interpreter or cache; returns its JSON."""

    def run(script: str, *arguments: str) -> dict[str, Any]:
        environment = {
            name: each for name, each in os.environ.items() if name != "TRITON_INTERPRET"
        }
        environment["TRITON_CACHE_DIR"] = str(tmp_path_factory.mktemp("triton"))
        # Kernels are compiled with the setting of their configuration; this stills a warning.
        environment["TRITON_DEFAULT_FP_FUSION"] = "1"
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments],
            env=environment,
            capture_output=True,
            check=False,
            text=True,
            timeout=150,
        )
        assert done.returncode == 0, done.stderr
        made: dict[str, Any] = json.loads(done.stdout)
        return made

    return run


@pytest.fixture
def poisoned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fills what `torch.empty` gives with NaN, so that nothing unwritten can pass."""
    empty = torch.empty

    def poisoned(*args: Any, **options: Any) -> torch.Tensor:
        made = empty(*args, **options)
        return made.fill_(torch.nan) if made.is_floating_point() else made

    monkeypatch.setattr(torch, "empty", poisoned)
