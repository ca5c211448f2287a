"""Engines that are forked for tests end as those do that a scan starts."""

from __future__ import annotations

import signal
import socket
import subprocess
from pathlib import Path

import psutil

from testkit.engines import forking
from testkit.waiting import at_most, eventually
from tests.client.scans import HARMLESS, surroundings


def answers(place: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as one:
        return place.exists() and one.connect_ex(str(place)) == 0


def test_an_engine_is_gone_with_the_program_that_stands_for_it(tmp_path: Path) -> None:
    place = tmp_path / "engine.sock"
    with subprocess.Popen(
        [*forking(), "scan", str(HARMLESS.parent), "--state", str(tmp_path)],
        cwd=tmp_path,
        env=surroundings(tmp_path),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as scan:
        try:
            assert eventually(lambda: answers(place), 60)
            [stands] = psutil.Process(scan.pid).children()
            held = tmp_path / "held.sock"
            held.hardlink_to(place)  # the scan takes its own name away
            scan.send_signal(signal.SIGSTOP)  # else it would end the engine itself
            stands.kill()
            assert eventually(lambda: not answers(held), 10)
            scan.send_signal(signal.SIGCONT)
            _, said = scan.communicate(timeout=at_most(30))
        finally:
            scan.kill()  # without effect once it has ended
    assert scan.returncode == 3
    assert "engine" in said


def test_nothing_but_an_engine_is_forked(tmp_path: Path) -> None:
    other = "import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', 'pass']))"
    command = [*forking()[:3], forking()[3].partition("from loragate")[0] + other]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "only an engine is forked" in done.stderr
