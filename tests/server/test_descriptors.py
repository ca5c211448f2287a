"""Open files: as many as the system gives, and never all of them to connections."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import resource
import subprocess
import sys
from typing import Any

import pytest

from loragate_server.app.descriptors import AcceptFailures, most_connections

ACCEPT = "socket.accept() out of system resource"


def report() -> dict[str, Any]:
    return {"message": ACCEPT, "exception": OSError(errno.EMFILE, os.strerror(errno.EMFILE))}


def in_a_process(limits: tuple[int, int], code: str) -> str:
    """What a program prints that is started with these limits."""
    first = f"import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, {limits})\n"
    done = subprocess.run(
        [sys.executable, "-c", first + code],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_the_process_takes_as_many_files_as_it_may() -> None:
    code = (
        "from loragate_server.app.descriptors import raise_descriptor_limit as r\n"
        "import resource\nprint(r(), *resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    assert in_a_process((256, 1000), code) == "1000 1000 1000"


def test_ports_leave_files_to_the_work(caplog: pytest.LogCaptureFixture) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 900), hard))
    try:
        assert most_connections(1024) == min(soft, 900) // 3
        assert "ulimit -n" in caplog.text
        assert most_connections(100) == 100
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_port_that_cannot_accept_is_one_line_in_the_log_now_and_then(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loop, failures = asyncio.new_event_loop(), AcceptFailures(every_s=60)
    for _ in range(500):
        failures(loop, report())
    loop.close()
    [line] = caplog.records
    assert line.levelno == logging.ERROR
    assert "Too many open files" in line.getMessage()
    assert line.exc_info is None


def test_how_often_it_could_not_is_said(caplog: pytest.LogCaptureFixture) -> None:
    loop, failures = asyncio.new_event_loop(), AcceptFailures(every_s=0)
    failures._next_s = float("inf")
    for _ in range(3):
        failures(loop, report())
    failures._next_s = 0.0
    failures(loop, report())
    loop.close()
    assert "4 times" in caplog.text


def test_every_other_fault_of_the_loop_is_logged_as_ever(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.new_event_loop()
    AcceptFailures().install(loop)
    loop.call_exception_handler({"message": "a task was destroyed"})
    loop.close()
    assert "a task was destroyed" in caplog.text
