"""A real server, a receiver in a process of its own that is away, and a kill in between."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from subprocess import Popen, TimeoutExpired
from typing import Any
from urllib.request import urlopen

from loragate import AuditClient, Verdict
from loragate_server.config.schema import EMBEDDED_PIPELINE
from loragate_server.testing import ServerProcess, environment
from testkit.event_receiver import make_secret, receiver_process
from testkit.servers import forked_command, forked_server
from testkit.waiting import eventually

ADAPTERS = Path(__file__).parents[2] / "examples" / "adapters"


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def block(server: ServerProcess, strengths: list[float]) -> list[str]:
    """Has an adapter blocked at each strength; returns the ids of the decisions."""
    bomb, found = ADAPTERS / "learned-bomb.safetensors", []
    with AuditClient(server.grpc, on_unavailable="raise", timeout=120) as client:
        for strength in strengths:
            answer = client.audit_file(bomb, strength=strength)
            assert answer.verdict is Verdict.BLOCK
            found.append(answer.decision_id)
    return found


def taken(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_events_survive_a_receiver_that_is_away_and_a_server_that_is_killed(
    tmp_path: Path,
) -> None:
    (state := tmp_path / "state").mkdir()
    secret, file, port = make_secret(tmp_path / "secret"), tmp_path / "taken", free_port()
    receiver = {
        "name": "tickets",
        "url": f"http://127.0.0.1:{port}/events",
        "secret_file": str(secret),
        "timeout_s": 2,
    }
    settings = {"LORAGATE_EVENTS__RECEIVERS": json.dumps([receiver])}
    with suppress(TimeoutExpired), forked_server(state, settings) as server:
        made = block(server, [1.0])
        assert eventually(lambda: "did not take" in server.log.read_text(), 20.0)
        os.kill(server.pid, signal.SIGKILL)
    assert secret.read_text().strip() not in (state / "server.log").read_text()
    with (
        receiver_process(port, secret, file),
        forked_server(state, settings) as server,
    ):
        made += block(server, [0.9])
        assert eventually(lambda: {one["id"] for one in taken(file)} == set(made), 60.0)
    events = {one["id"]: one for one in taken(file)}
    first = events[made[0]]
    assert first["type"] == "loragate.decision.block.v1"
    assert first["data"]["concepts"][0]["id"] == "bomb"
    assert first["data"]["adapters"][0]["name"] == "learned-bomb.safetensors"
    listed = forked_command(
        ("events", "list", "--state-dir", str(state)), environment(state, settings)
    )
    assert (listed.returncode, listed.stdout) == (0, "")


def test_a_base_model_without_a_calibration_is_told_of_once(tmp_path: Path) -> None:
    (state := tmp_path / "state").mkdir()
    secret, file = make_secret(tmp_path / "secret"), tmp_path / "taken"
    copy = shutil.copytree(EMBEDDED_PIPELINE, tmp_path / "pipeline")  # for which there is none
    with receiver_process(0, secret, file) as port:
        receiver = {
            "name": "tickets",
            "url": f"http://127.0.0.1:{port}/events",
            "secret_file": str(secret),
        }
        settings = {
            "LORAGATE_BASE_MODELS": json.dumps([{"name": "own", "folder": str(copy)}]),
            "LORAGATE_EVENTS__RECEIVERS": json.dumps([receiver]),
        }
        for _ in range(2):
            with forked_server(state, settings) as server:
                assert eventually(lambda: bool(taken(file)), 60.0)
                with urlopen(f"http://{server.http}/metrics", timeout=60) as answer:
                    metrics = answer.read().decode()
    [event] = taken(file)
    assert event["type"] == "loragate.calibration.stale.v1"
    assert event["data"]["base_model"] == "own"
    assert event["data"]["concept_count"] > 3
    assert 'loragate_events_dead_letters{receiver="tickets"} 0.0' in metrics


def documented(language: str, containing: str) -> str:
    """The example of docs/events.md that holds some text."""
    document = (Path(__file__).parents[2] / "docs" / "events.md").read_text()
    found = re.findall(rf"^```{language}\n(.*?)^```", document, re.DOTALL | re.MULTILINE)
    [example] = [one for one in found if containing in one]
    return str(example)


def test_whoever_tries_it_as_documented_sees_an_event(tmp_path: Path) -> None:
    (state := tmp_path / "state").mkdir()
    secret, port, seen = (
        make_secret(tmp_path / "tickets.secret"),
        str(free_port()),
        tmp_path / "out",
    )
    program, config = tmp_path / "receive.py", tmp_path / "events.yaml"
    program.write_text(documented("python", "8900").replace("8900", port))
    # The server of a test is started in another folder.
    text = documented("yaml", "8900").replace("8900", port)
    config.write_text(text.replace(secret.name, str(secret)))
    with (
        seen.open("w") as out,
        Popen([sys.executable, program], cwd=tmp_path, stdout=out) as receiver,
    ):
        try:
            with forked_server(state, config=config) as server:
                adapter = ADAPTERS / "learned-bomb.safetensors"
                asked = [
                    sys.executable,
                    "-m",
                    "loragate",
                    "audit",
                    "--target",
                    server.grpc,
                    adapter,
                ]
                told = subprocess.run(asked, capture_output=True, text=True, timeout=300)
                assert told.returncode == 1, told.stderr
                assert eventually(lambda: "loragate.decision.block.v1 0" in seen.read_text(), 30.0)
                subprocess.run(asked, capture_output=True, timeout=300, check=False)
        finally:
            receiver.kill()
    assert len(seen.read_text().splitlines()) == 1
