"""The server process that demos, benchmarks and tests start says why it did not start."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from loragate_server import testing
from loragate_server.testing import server_process
from testkit.waiting import at_most


def test_a_server_that_is_not_ready_in_time_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(testing, "START_LIMIT_S", 1.0)
    began_s = time.monotonic()
    with pytest.raises(RuntimeError, match="did not become ready"), server_process(tmp_path):
        raise AssertionError("it was ready within a second")
    assert time.monotonic() - began_s < at_most(10)


def test_a_server_that_ends_by_itself_shows_its_log(tmp_path: Path) -> None:
    settings = {"LORAGATE_LISTEN__GRPC": "0.0.0.0:0"}
    with (
        pytest.raises(RuntimeError, match="is not on loopback"),
        server_process(tmp_path, settings),
    ):
        raise AssertionError("it listens off loopback without TLS")
