"""Two replicas that are killed at any moment, and a receiver that comes and goes."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from subprocess import TimeoutExpired

import pytest
from sqlalchemy import text

from loragate import AdapterReference, AuditClient, Verdict
from loragate_server.config.schema import EMBEDDED_POLICY
from loragate_server.record.database import Database
from testkit.event_receiver import make_secret, receiver_process
from testkit.postgres import PostgresMissingError, postgres_server
from testkit.servers import forked_server
from testkit.waiting import eventually
from tests.e2e.test_events import ADAPTERS, free_port, taken

BOMB = ADAPTERS / "learned-bomb.safetensors"
LOAD_S = 25.0

pytestmark = [pytest.mark.long, pytest.mark.needs("initdb"), pytest.mark.timeout(300)]


@pytest.fixture
def database_url() -> Iterator[str]:
    try:
        with postgres_server() as postgres:
            yield postgres.new_database()
    except PostgresMissingError as error:
        pytest.skip(str(error))


def denying(file: Path) -> Path:
    """A policy with which the adapter is blocked at once, without an audit."""
    digest = hashlib.sha256(BOMB.read_bytes()).hexdigest()
    listed = f'deny_sha256:\n  - sha256: "{digest}"\n    note: Taken down\n'
    shipped = EMBEDDED_POLICY.read_text()
    assert "deny_sha256: []\n" in shipped
    file.write_text(shipped.replace("deny_sha256: []\n", listed))
    return file


def replica(state: Path, settings: dict[str, str], end_s: float, answered: list[str]) -> None:
    """Starts, decides and kills one server after the other."""
    state.mkdir()
    while time.monotonic() < end_s:
        with suppress(TimeoutExpired), forked_server(state, settings) as server:
            kill_s = time.monotonic() + random.uniform(1, 4)
            with AuditClient(server.grpc, on_unavailable="raise", timeout=60) as client:
                while time.monotonic() < kill_s:
                    used = AdapterReference(path=str(BOMB), strength=random.uniform(0.1, 1.0))
                    answer = client.audit([used])
                    assert answer.verdict is Verdict.BLOCK
                    answered.append(answer.decision_id)
            os.kill(server.pid, signal.SIGKILL)


def test_every_block_is_told_of_whoever_is_killed_or_away(
    database_url: str, tmp_path: Path
) -> None:
    secret, file, port = make_secret(tmp_path / "secret"), tmp_path / "taken", free_port()
    receiver = {
        "name": "tickets",
        "url": f"http://127.0.0.1:{port}/",
        "secret_file": str(secret),
        "timeout_s": 2,
    }
    settings = {
        "LORAGATE_DATABASE_URL": database_url,
        "LORAGATE_EVENTS__RECEIVERS": json.dumps([receiver]),
        "LORAGATE_INTAKE__ROOTS": json.dumps([str(ADAPTERS)]),
        "LORAGATE_POLICY": str(denying(tmp_path / "policy.yaml")),
    }
    answered: list[str] = []
    end_s = time.monotonic() + LOAD_S
    replicas = [
        threading.Thread(target=replica, args=(tmp_path / name, settings, end_s, answered))
        for name in ("one", "two")
    ]
    for one in replicas:
        one.start()
    while any(one.is_alive() for one in replicas):
        with receiver_process(port, secret, file):
            time.sleep(random.uniform(1, 3))
        time.sleep(random.uniform(0.5, 2))
    with (
        receiver_process(port, secret, file),
        forked_server(tmp_path / "one", settings),
        closing(Database(database_url, 5.0)) as database,
    ):

        def rows(query: str) -> list[str]:
            with database.reading() as connection:
                return [str(row[0]) for row in connection.execute(text(query))]

        assert eventually(lambda: not rows("SELECT event_id FROM event_deliveries"), 90.0)
        blocks = rows("SELECT decision_id FROM audits WHERE verdict = 'BLOCK'")
        assert rows("SELECT event_id FROM events") == []
    told = [one["id"] for one in taken(file)]
    print(f"{len(blocks)} blocks, {len(told)} events")
    assert len(answered) > 20
    assert set(answered) <= set(blocks)
    assert set(told) == set(blocks)
