"""Both kernel backends lead to the same verdicts and the same numbers, on a part of an audit.

In a process of its own, whose Triton interprets kernels. `scripts/compare_backends.py` without
options compares whole audits of all example adapters, which takes minutes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[3] / "scripts" / "compare_backends.py"


def test_a_verdict_and_its_numbers_do_not_depend_on_the_backend() -> None:
    adapters = ("learned-jack-o-lantern", "harmless-sepia")
    command = [sys.executable, str(SCRIPT), "--small", "--layers", "4"]
    command += ["--concept", "jack-o-lantern"]
    for name in adapters:
        command += ["--adapter", name]
    done = subprocess.run(
        command,
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=False,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines] == list(adapters)
    assert all(line.endswith(", agrees") for line in lines)
    assert "BLOCK / BLOCK" in lines[0] or "REVIEW / REVIEW" in lines[0]
    assert "ALLOW / ALLOW" in lines[1]
