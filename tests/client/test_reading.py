"""Reading a file before it is asked about: never more than once, and never without a limit."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from loragate import AuditClient, Verdict, _reading
from loragate._reading import read_head, read_once
from loragate.testing import FakeAuditServer
from testkit.waiting import at_most
from tests.client.doors import SMALL


def test_a_pipe_under_the_name_of_an_adapter_is_refused_at_once(tmp_path: Path) -> None:
    pipe = tmp_path / "style.safetensors"
    os.mkfifo(pipe)
    began = time.monotonic()
    for read in (read_once, read_head):
        with pytest.raises(ValueError, match="not a regular file"):
            read(pipe)
    with (
        AuditClient("127.0.0.1:1", on_unavailable="allow", timeout=1) as client,
        pytest.raises(ValueError, match="not a regular file"),
    ):
        client.audit_file(pipe)
    assert time.monotonic() - began < at_most(2)


@pytest.mark.skipif(not hasattr(fcntl, "F_SETLEASE"), reason="leases are Linux's")
def test_a_file_that_another_process_holds_back_keeps_nobody_waiting(tmp_path: Path) -> None:
    path = tmp_path / "style.safetensors"
    path.write_bytes(SMALL)
    hold = (
        "import fcntl, signal, sys, time; signal.signal(signal.SIGIO, signal.SIG_IGN);"
        "file = open(sys.argv[1], 'r+b'); fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK);"
        "print('held', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", hold, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            if holder.stdout.readline() != "held\n":
                pytest.skip("this file system gives no leases")
            began = time.monotonic()
            with pytest.raises(OSError):  # noqa: PT011 (whichever the kernel says)
                read_once(path, limit_s=5)
            assert time.monotonic() - began < at_most(5)
        finally:
            holder.send_signal(signal.SIGKILL)


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Every read of the package hangs, as on a network drive, until the event is set."""
    event = threading.Event()
    read = os.read

    def hang(descriptor: int, size: int) -> bytes:
        event.wait(120)
        return read(descriptor, size)

    monkeypatch.setattr(_reading.os, "read", hang)
    yield event
    event.set()


def test_reading_has_a_limit_of_its_own_and_failing_it_blocks(
    fake: FakeAuditServer, tmp_path: Path, slow_disk: threading.Event, monkeypatch: Any
) -> None:
    monkeypatch.setattr(_reading, "READ_LIMIT_S", 0.3)
    path = tmp_path / "style.safetensors"
    path.write_bytes(SMALL)
    began = time.monotonic()
    with (
        AuditClient(fake.target, on_unavailable="allow", timeout=0.1) as client,
        pytest.raises(TimeoutError, match=str(path)),
    ):
        client.audit_file(path)
    assert time.monotonic() - began < at_most(5)
    assert fake.calls == []


def test_reading_does_not_count_as_waiting_for_the_service(
    fake: FakeAuditServer, tmp_path: Path, slow_disk: threading.Event
) -> None:
    fake.default = Verdict.BLOCK
    path = tmp_path / "style.safetensors"
    path.write_bytes(SMALL)
    threading.Timer(1.5, slow_disk.set).start()
    with AuditClient(fake.target, on_unavailable="allow", timeout=1) as client:
        result = client.audit_file(path)
    assert (result.verdict, result.decided) == (Verdict.BLOCK, True)


def test_reads_that_hang_are_bounded_and_recover(
    tmp_path: Path, slow_disk: threading.Event
) -> None:
    path = tmp_path / "style.safetensors"
    path.write_bytes(SMALL)
    with ThreadPoolExecutor(40) as pool:
        late = list(pool.map(lambda _: _outcome(path), range(40)))
    assert set(late) == {"late"}
    hanging = [one for one in threading.enumerate() if one.name == "loragate-read"]
    assert len(hanging) == 32
    slow_disk.set()
    for thread in hanging:
        thread.join(10)
    assert read_once(path) == SMALL


def _outcome(path: Path) -> str:
    try:
        read_once(path, limit_s=0.3)
    except TimeoutError:
        return "late"
    return "read"
