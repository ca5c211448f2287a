"""A real server whose audit hangs: answered, told of, replaced, or ended to be started again."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from loragate import AuditClient, AuditError
from loragate_server.testing import ServerProcess, server_process
from testkit.waiting import at_most, busyness
from tests.e2e.hanging_server import MODEL, READING

ADAPTERS = Path(__file__).parents[2] / "examples" / "adapters"
FILE = ADAPTERS / "harmless-watermelon.safetensors"
PROGRAM = (str(Path(__file__).with_name("hanging_server.py")),)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    # Longer than the first audit of a process takes, which makes what later ones find made.
    silent_s = str(5 * busyness())
    settings = {"LORAGATE_GATE__STUCK_AFTER_S": silent_s, "LORAGATE_DRAIN_GRACE_S": "2"}
    with server_process(tmp_path, settings, program=PROGRAM) as process:
        yield process


def metric(server: ServerProcess, line: str) -> float:
    with urllib.request.urlopen(f"http://{server.http}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return float(next(one for one in lines if one.startswith(line)).rsplit(" ", 1)[1])


def ready(server: ServerProcess) -> bool:
    try:
        with urllib.request.urlopen(f"http://{server.http}/readyz", timeout=10):
            return True
    except (urllib.error.URLError, ConnectionError):
        return False


def refused(client: AuditClient, strength: float) -> str:
    with pytest.raises(AuditError) as error:
        client.audit_file(FILE, strength=strength)
    return str(error.value.reason)


def test_a_file_whose_reading_hangs_delays_the_next_audit_by_less_than_two_seconds(
    server: ServerProcess,
) -> None:
    with AuditClient(server.grpc, on_unavailable="raise", timeout=60) as client:
        client.audit_file(FILE)
        assert refused(client, READING) == "AUDIT_FAILED"
        began = time.monotonic()
        assert client.audit_file(FILE, strength=0.9).allowed
        assert time.monotonic() - began < at_most(2)
    assert ready(server)
    assert metric(server, 'loragate_worker_replaced_total{cause="stuck"}') == 1
    assert metric(server, "loragate_worker_stuck ") == 1
    log = server.log.read_text()
    assert "gave no sign of life for" in log
    assert "hanging_server.py" in log, "the log does not say where it hangs"


def test_a_model_that_hangs_ends_the_server_so_that_it_is_started_again(
    server: ServerProcess,
) -> None:
    with AuditClient(server.grpc, on_unavailable="raise", timeout=60) as client:
        assert refused(client, MODEL) == "AUDIT_FAILED"
        assert not ready(server)
    assert server.wait() == 3
    assert "the process has to be started again" in server.log.read_text()
