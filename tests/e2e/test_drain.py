"""SIGTERM while many callers ask: every call is answered, or refused before its work began."""

from __future__ import annotations

import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.resilience.load import Load, fresh_questions
from benchmarks.resilience.stops import drain
from loragate import AuditClient
from loragate_server.testing import ServerProcess
from testkit.waiting import at_most

Start = Callable[..., ServerProcess]


@pytest.mark.long
def test_a_server_told_to_stop_loses_no_call_of_many(tmp_path: Path) -> None:
    drained = drain(tmp_path, callers=16, slow_every=20, warm_up=30)
    print(f"{drained.calls} calls, {drained.decided} decided, drained in {drained.drain_s:.2f} s")
    assert drained.lost == []
    assert drained.refused_but_written == []
    assert drained.late > 0
    assert set(drained.refused) <= {"DRAINING", "no connection", "closing"}
    assert drained.refused["DRAINING"] > 0
    assert drained.exit_status == 0
    log = (tmp_path / "server.log").read_text()
    assert "Traceback" not in log
    assert "drained after" in log


def test_what_still_waits_when_the_grace_time_is_over_hears_why(start: Start) -> None:
    server = start(DRAIN_GRACE_S="0.5", DRAIN_DELAY_S="1", THREADS="1")
    with Load(server.grpc, fresh_questions(slow_every=1), callers=6) as load:
        load.wait_for_decisions(1)
        told_s = time.monotonic()
        os.kill(server.pid, signal.SIGTERM)
        time.sleep(0.3)
        assert not ready(server)
        with AuditClient(server.grpc, on_unavailable="raise") as client:
            assert list(client.list())  # taken during the delay
        assert server.wait() == 3
        assert time.monotonic() - told_s < at_most(4)
    asked_before = [one for one in load.answers if one.asked_s < told_s and not one.decided]
    assert "DRAINING" in {one.reason for one in asked_before}
    assert {one.code for one in asked_before} == {"UNAVAILABLE"}
    assert {one.verdict for one in asked_before} == {"BLOCK"}


def test_a_second_signal_ends_the_server_with_audits_waiting(start: Start) -> None:
    server = start(THREADS="1")
    with Load(server.grpc, fresh_questions(slow_every=1), callers=8) as load:
        load.wait_for_decisions(1)
        told_s = time.monotonic()
        os.kill(server.pid, signal.SIGTERM)
        time.sleep(0.2)
        os.kill(server.pid, signal.SIGINT)
        assert server.wait() == 3
        assert time.monotonic() - told_s < 6  # eight audits take three times as long


def ready(server: ServerProcess) -> bool:
    try:
        with urllib.request.urlopen(f"http://{server.http}/readyz", timeout=5):
            return True
    except urllib.error.HTTPError as error:
        error.close()
        return error.code != 503
