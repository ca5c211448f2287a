from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

STOP = "import os, signal; os.kill(os.getpid(), signal.SIGINT)"
AT_A_TERMINAL = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
"""Whoever runs these tests in the background has them ignore what a person's command hears."""
LOAD = "from loragate_server.cli.interrupts import end_in_imports\n"
START = f"{AT_A_TERMINAL}{LOAD}end_in_imports()\n"


def run(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", START + script],
        env={"PYTHONPATH": ":".join([str(folder), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )


def test_ctrl_c_ends_a_command_at_once_while_a_module_swallows_what_is_raised(
    tmp_path: Path,
) -> None:
    (tmp_path / "swallows.py").write_text(f"try:\n    {STOP}\nexcept BaseException:\n    pass\n")
    done = run("import swallows; print('went on')", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_ctrl_c_is_an_exception_that_work_can_tidy_up_after_elsewhere(tmp_path: Path) -> None:
    script = f"try:\n    {STOP}\nexcept KeyboardInterrupt:\n    print('tidied up')"
    assert run(script, tmp_path).stdout == "tidied up\n"


def test_a_signal_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    script = (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); end_in_imports()\n"
        f"{STOP}; print('went on')"
    )
    done = subprocess.run(
        [sys.executable, "-c", LOAD + script],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "went on\n"
