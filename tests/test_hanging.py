"""A run of tests ends with the name of a test that hangs, wherever that hangs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HANGING = {
    "while_it_cleans_up": """
def test_hangs():
    with ThreadPoolExecutor() as pool:
        pool.submit(threading.Event().wait).result()
""",
    "while_it_is_torn_down_after_a_failure": """
@pytest.fixture
def stuck():
    yield
    threading.Event().wait()

def test_hangs(stuck):
    assert False
""",
}


@pytest.mark.parametrize("where", HANGING)
def test_the_run_ends_and_names_the_test_and_the_line(where: str, tmp_path: Path) -> None:
    tests = tmp_path / "test_it.py"
    tests.write_text(
        "import threading\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "import pytest\n"
        "import testkit.hanging\n"
        "testkit.hanging.CLEAN_UP_S = 0.5\n"
        f"{HANGING[where]}\n"
        "def test_is_well():\n"
        "    pass\n"
    )
    run = [sys.executable, "-m", "pytest", "-n", "1", "-p", "testkit.hanging", "--timeout", "0.5"]
    ended = subprocess.run(
        [*run, "--rootdir", tmp_path, "-c", "/dev/null", tests],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "crashed while running" in ended.stdout, ended.stdout + ended.stderr
    assert "test_it.py::test_hangs" in ended.stdout
    assert "1 passed" in ended.stdout
    assert f'File "{tests}", line ' in ended.stderr
