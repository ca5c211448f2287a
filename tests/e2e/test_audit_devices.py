"""A real server with audit devices: what a caller and an operator see when one is away."""

from __future__ import annotations

import json
import os
import signal
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from loragate import AuditClient, AuditError, Verdict
from loragate_server.testing import ServerProcess
from testkit.audit_receivers import log_collector, syslog_receiver
from testkit.servers import forked_server
from testkit.waiting import eventually

FILE = Path(__file__).parents[2] / "examples" / "adapters" / "harmless-watermelon.safetensors"
LIMIT_S = 30.0

Start = Callable[..., ServerProcess]


def devices(*settings: dict[str, object]) -> str:
    return json.dumps(settings)


def connect(server: ServerProcess) -> AuditClient:
    return AuditClient(server.grpc, on_unavailable="raise", timeout=120)


def fetched(server: ServerProcess, path: str) -> str:
    try:
        with urllib.request.urlopen(f"http://{server.http}{path}", timeout=10) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        return error.read().decode()


def is_ready(server: ServerProcess) -> bool:
    return json.loads(fetched(server, "/readyz")).get("ready", False) is True


def test_no_answer_without_a_required_device_and_answers_again_with_it(start: Start) -> None:
    with syslog_receiver() as receiver:
        port = receiver.port
        target = {"address": f"tcp://127.0.0.1:{port}"}
        server = start(
            AUDIT_DEVICES=devices(
                {"name": "siem", "required": True, "timeout_s": 1, "syslog": target}
            )
        )
        with connect(server) as client:
            assert eventually(lambda: "siem" not in fetched(server, "/readyz"), LIMIT_S)
            assert client.audit_file(FILE, strength=0.71).verdict is Verdict.ALLOW
            [line] = [one for one in receiver.received if one.kind == "decision"]
            assert line.entry["verdict"]["decision"]["verdict"] == "ALLOW"
    with connect(server) as client:
        with pytest.raises(AuditError) as caught:
            client.audit_file(FILE, strength=0.72)
        assert caught.value.reason == "DECISION_LOG_UNAVAILABLE"
        assert "audit device siem" in str(caught.value)
        assert "bring the device back" in str(caught.value)
        assert eventually(lambda: "audit device siem" in fetched(server, "/readyz"), LIMIT_S)
        assert 'record_failure{reason="DECISION_LOG_UNAVAILABLE"} 1.0' in fetched(
            server, "/metrics"
        )
        with syslog_receiver(port) as receiver:
            assert eventually(lambda: "audit device" not in fetched(server, "/readyz"), LIMIT_S)
            assert client.audit_file(FILE, strength=0.72).verdict is Verdict.ALLOW


def test_what_is_not_required_gets_all_lines_after_a_kill(tmp_path: Path) -> None:
    with log_collector() as collector:
        port = int(collector.address.rpartition(":")[2])
    setting = devices({"name": "lake", "otlp": {"endpoint": f"http://127.0.0.1:{port}"}})
    variables = {"LORAGATE_AUDIT_DEVICES": setting}
    with suppress(RuntimeError), forked_server(tmp_path, variables) as server:
        with connect(server) as client:
            for number in range(5):
                verdict = client.audit_file(FILE, strength=0.8 + number / 1000).verdict
                assert verdict is Verdict.ALLOW
        os.kill(server.pid, signal.SIGKILL)
        server.wait()
    logged = (tmp_path / "decisions.jsonl").read_bytes().splitlines()
    assert len(logged) >= 5
    with log_collector(port) as collector, forked_server(tmp_path, variables) as server:
        assert eventually(lambda: len(collector.received) >= len(logged), LIMIT_S)
        assert [one.line for one in collector.received][: len(logged)] == logged
        assert 'device_behind_lines{device="lake"} 0.0' in fetched(server, "/metrics")
