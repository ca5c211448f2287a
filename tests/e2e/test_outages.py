"""When something beneath the server fails: no verdict, a named reason, and work again after it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from loragate import AuditClient, AuditError, Verdict
from loragate.v1 import audit_pb2, audit_pb2_grpc
from loragate_server.config.schema import EMBEDDED_POLICY
from loragate_server.testing import ServerProcess
from testkit.waiting import eventually

ADAPTERS = Path(__file__).parents[2] / "examples" / "adapters"
FILE = ADAPTERS / "harmless-watermelon.safetensors"
LEARNED = FILE.with_name("learned-jack-o-lantern.safetensors")
"""An adapter that goes through every stage of an audit, which takes longest."""
GOOD_POLICY = EMBEDDED_POLICY.read_text()

Start = Callable[..., ServerProcess]


def connect(server: ServerProcess) -> AuditClient:
    return AuditClient(server.grpc, on_unavailable="raise", timeout=120)


def metrics(server: ServerProcess) -> str:
    with urllib.request.urlopen(f"http://{server.http}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def refusals(server: ServerProcess, reason: str) -> float:
    """How often the server refused for this reason."""
    lines = metrics(server).splitlines()
    wanted = f'loragate_refusals_total{{reason="{reason}"}}'
    return float(next(line for line in lines if line.startswith(wanted)).rsplit(" ", 1)[1])


def call_started(server: ServerProcess) -> bool:
    lines = metrics(server).splitlines()
    started = [
        line for line in lines if line.startswith("grpc_server_started_total") and '"Audit"' in line
    ]
    return any(not line.endswith(" 0.0") for line in started)


def test_a_database_that_is_gone_gives_no_verdict_until_it_is_back(start: Start) -> None:
    server = start()
    state = server.log.parent
    aside = state / "aside"
    with connect(server) as client:
        aside.mkdir()
        for file in list(state.glob("loragate.sqlite3*")):
            shutil.move(file, aside / file.name)
        with pytest.raises(AuditError) as caught:
            client.audit_file(FILE)
        assert caught.value.reason == "DATABASE_UNAVAILABLE"
        for file in list(aside.iterdir()):
            shutil.move(file, state / file.name)
        assert client.audit_file(FILE).verdict is Verdict.ALLOW


def test_a_full_disk_under_the_decision_log_gives_no_verdict_until_there_is_room(
    start: Start, small_disk: Path, fill_disk: Callable[[Path], Path]
) -> None:
    server = start(DECISION_LOG=str(small_disk / "decisions.jsonl"))
    with connect(server) as client:
        ballast = fill_disk(small_disk)
        with pytest.raises(AuditError) as caught:
            client.audit_file(FILE)
        assert caught.value.reason == "DISK_FULL"
        ballast.unlink()
        assert client.audit_file(FILE).verdict is Verdict.ALLOW


def test_a_broken_policy_keeps_the_last_good_one_in_force(start: Start, tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(GOOD_POLICY)
    server = start(POLICY=str(policy))
    with connect(server) as client:
        before = client.audit_file(FILE)
        policy.write_text(GOOD_POLICY.replace("mode: enforce", "mode: permissive"))
        assert eventually(lambda: "loragate_policy_last_reload_success 0.0" in metrics(server), 20)
        after = client.audit_file(FILE)
        assert after.digests.policy == before.digests.policy
        policy.write_text(GOOD_POLICY.replace("mode: enforce", "mode: pilot"))
        assert eventually(
            lambda: client.audit_file(FILE).digests.policy != before.digests.policy, 20
        )


def test_a_broken_policy_at_the_start_stops_the_server_with_the_line(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("version: 1\nmode: enforce\ndefaults:\n  block_score: high\n")
    done = subprocess.run(
        [sys.executable, "-m", "loragate_server", "policy", "check", str(policy)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "block_score" in done.stdout + done.stderr
    assert ":4" in done.stdout + done.stderr


def test_an_empty_library_stops_the_server_and_says_so(start: Start, tmp_path: Path) -> None:
    library = tmp_path / "library"
    library.mkdir()
    (library / "library.yaml").write_text("version: 1\nconcepts: []\n")
    with pytest.raises(RuntimeError, match="0 forbidden"):
        start(LIBRARY=str(library))


def test_a_deadline_that_passes_gives_no_verdict_and_the_server_goes_on(
    server: ServerProcess, client: AuditClient
) -> None:
    with pytest.raises(AuditError) as caught:
        client.audit_file(LEARNED, strength=0.51, timeout=0.15)
    assert type(caught.value).__name__ == "DeadlineExceeded"
    assert client.audit_file(FILE, strength=0.52).verdict is Verdict.ALLOW


def test_a_client_that_goes_away_stops_its_audit_and_the_server_goes_on(
    server: ServerProcess, client: AuditClient
) -> None:
    before = refusals(server, "CANCELLED")
    with grpc.insecure_channel(server.grpc) as channel:
        reference = audit_pb2.AdapterReference(
            inline_bytes=LEARNED.read_bytes(), denoiser_strength=0.61
        )
        call = audit_pb2_grpc.AuditServiceStub(channel).Audit.future(
            audit_pb2.AuditRequest(adapters=[reference])
        )
        time.sleep(0.3)
        call.cancel()
    assert eventually(lambda: refusals(server, "CANCELLED") > before, 20)
    assert client.audit_file(FILE, strength=0.62).verdict is Verdict.ALLOW


def test_more_questions_than_the_queue_holds_are_told_when_to_come_back(start: Start) -> None:
    server = start(GATE__QUEUE_LIMIT="1")

    def ask(number: int) -> str:
        with AuditClient(server.grpc, on_unavailable="raise", timeout=8) as client:
            try:
                return client.audit_file(FILE, strength=1 + number / 1000).verdict.name
            except AuditError as error:
                return error.reason or type(error).__name__

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(8)))
    assert refusals(server, "QUEUE_FULL") > 0
    assert set(answers) <= {"ALLOW", "QUEUE_FULL", "DEADLINE_EXCEEDED", "DeadlineExceeded"}
    with connect(server) as client:
        assert client.audit_file(FILE).verdict is Verdict.ALLOW


def test_a_stopped_server_answers_what_is_in_flight(start: Start) -> None:
    server = start()
    with connect(server) as client, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(client.audit_file, FILE, strength=0.7)
        assert eventually(lambda: call_started(server), 20)
        time.sleep(0.3)
        os.kill(server.pid, signal.SIGTERM)
        assert asked.result(timeout=60).verdict is Verdict.ALLOW


def test_stack_traces_stay_out_of_the_log(server: ServerProcess) -> None:
    assert "Traceback" not in server.log.read_text()


def test_secrets_that_callers_send_stay_out_of_the_log_and_of_the_decisions(start: Start) -> None:
    known, wrong, signature = "known-4f1b7a", "wrong-93c0de", "signature-77aa01"
    digest = hashlib.sha256(known.encode()).hexdigest()
    server = start(
        TOKENS=json.dumps([{"name": "holder", "sha256": digest, "permissions": ["audit"]}]),
        INTAKE__ENABLED_SCHEMES='["https"]',
        LOG__LEVEL="debug",
    )
    with AuditClient(server.grpc, token=known, on_unavailable="raise", timeout=120) as client:
        assert client.audit_file(FILE).verdict is Verdict.ALLOW
        with pytest.raises(AuditError) as caught:
            client.audit(f"https://user:{signature}@127.0.0.1:1/a.safetensors?sig={signature}")
        assert signature not in str(caught.value)
    unknown = AuditClient(server.grpc, token=wrong, on_unavailable="raise", timeout=120)
    with unknown, pytest.raises(AuditError):
        unknown.audit_file(FILE)
    state = server.log.parent
    written = [file for file in state.iterdir() if file.is_file()]
    assert {"server.log", "decisions.jsonl", "loragate.sqlite3"} <= {one.name for one in written}
    assert "holder" in (state / "decisions.jsonl").read_text()
    for file in written:
        for secret in (known, wrong, signature):
            assert secret.encode() not in file.read_bytes(), file.name


def test_the_password_of_a_database_that_cannot_be_reached_is_not_told(start: Start) -> None:
    with pytest.raises(RuntimeError, match=r"127\.0\.0\.1") as caught:
        start(DATABASE_URL="postgresql://audit:password-5d2e@127.0.0.1:1/audits")
    assert "password-5d2e" not in str(caught.value)
    assert "Traceback" not in str(caught.value)
