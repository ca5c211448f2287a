"""The local instance of Ray: nobody else gets in, and nothing of it stays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from loragate_server.catalogue import ray_job
from testkit.waiting import at_most, eventually

OURS = """
import os
from pathlib import Path
import subprocess
import sys
from loragate_server.catalogue.ray_job import Machines, ray_instance

with ray_instance(Machines()):
    import ray
    address = ray.get_runtime_context().gcs_address
    clean = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    code = f"import ray; ray.init(address='{address}', log_to_driver=False)"
    stranger = subprocess.run(
        [sys.executable, "-c", code],
        env={**clean, "RAY_AUTH_MODE": "disabled"},
        capture_output=True,
    )
    print("stranger", stranger.returncode)
"""


KILLED = """
import os
import sys
import time
from loragate_server.catalogue.ray_job import Machines, ray_instance

def told():
    return [os.environ.get(name) for name in ("LORAGATE_DATABASE_URL", "AWS_PROFILE")]

with ray_instance(Machines()):
    import ray
    print(ray.get(ray.remote(told).remote()), flush=True)
print(told(), flush=True)
with ray_instance(Machines()):
    turns = ray.remote(num_cpus=1)(lambda: time.sleep(600)).remote()
    print("ready", flush=True)
    sys.stdin.read()
"""


def of_instance(pid: int) -> list[psutil.Process]:
    """The processes that a driver's instance consists of."""
    sign = f"/lg-ray-{pid}-"
    found = []
    for one in psutil.process_iter(["cmdline"]):
        if any(sign in word for word in one.info["cmdline"] or ()):
            found.append(one)
    return found


def test_an_instance_follows_another_gets_no_password_and_goes_with_its_driver() -> None:
    ours = {"LORAGATE_DATABASE_URL": "postgresql://a:secret@b/c", "AWS_PROFILE": "readers"}
    driver = subprocess.Popen(
        [sys.executable, "-c", KILLED],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **ours, "RAY_ADDRESS": "127.0.0.1:1"},
    )
    with driver:
        assert driver.stdout
        assert driver.stdout.readline() == "[None, 'readers']\n"
        assert driver.stdout.readline() == f"{[*ours.values()]}\n"
        assert driver.stdout.readline() == "ready\n"
        assert len(of_instance(driver.pid)) >= 3
        driver.kill()
    assert eventually(lambda: not of_instance(driver.pid), 60)


@pytest.mark.long
def test_a_stranger_without_the_token_is_not_let_into_the_local_instance() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", OURS],
        capture_output=True,
        text=True,
        timeout=at_most(40),
        check=True,
    )
    assert "stranger 1" in ended.stdout


def test_folders_of_killed_processes_go_and_those_of_living_ones_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = Path("/tmp", f"t{os.getpid()}")
    short.mkdir()
    monkeypatch.setattr(ray_job.tempfile, "gettempdir", lambda: str(short))
    try:
        dead = short / "lg-ray-999999999-abcdefgh"
        living = short / f"lg-ray-{os.getpid()}-abcdefgh"
        for folder in (dead, living):
            folder.mkdir()
        made = ray_job._own_folder()
        assert made.parent == short
        assert made.stat().st_mode & 0o777 == 0o700
        assert not dead.exists()
        assert living.exists()
    finally:
        subprocess.run(["rm", "-r", str(short)], check=True)


def test_a_long_path_of_temporary_files_makes_way_for_a_shorter_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_job.tempfile, "gettempdir", lambda: str(tmp_path / ("x" * 40)))
    made = ray_job._own_folder()
    made.rmdir()
    assert len(str(made)) <= 44


def test_where_an_auditor_hung_is_told_before_its_own_log_goes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logs = tmp_path / "session_2026-11-30_10-00-00_1" / "logs"
    logs.mkdir(parents=True)
    (logs / "worker-1.err").write_text("said before\nTimeout (0:05:00)!\nFile adapter.py, line 7\n")
    (logs / "worker-2.err").write_text("nothing of the kind\n")
    ray_job._tell_of_hangs(tmp_path)
    [told] = caplog.messages
    assert told == "an auditor gave no sign of life: Timeout (0:05:00)!\nFile adapter.py, line 7"
