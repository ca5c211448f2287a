"""A server that could not take the next question in says so: 200 is never answered in vain."""

from __future__ import annotations

import json
import resource
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from loragate import AuditClient, AuditError, RetryPolicy, Verdict
from loragate_server.testing import ServerProcess
from testkit.servers import forked_server
from testkit.waiting import eventually

FILE = Path(__file__).parents[2] / "examples" / "adapters" / "harmless-watermelon.safetensors"


def readyz(server: ServerProcess) -> tuple[int, dict[str, str]]:
    """Status and parts."""
    try:
        with urllib.request.urlopen(f"http://{server.http}/readyz", timeout=10) as answer:
            return answer.status, json.load(answer)["parts"]
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)["parts"]


def not_ready(server: ServerProcess, part: str) -> str:
    """What a part says, once it alone keeps the server from being ready."""

    def only_this() -> bool:
        status, parts = readyz(server)
        return status == 503 and {name for name, state in parts.items() if state != "ok"} == {part}

    assert eventually(only_this, 20), readyz(server)
    return readyz(server)[1][part]


def ready(server: ServerProcess) -> bool:
    return eventually(lambda: readyz(server)[0] == 200, 20)


def ask(server: ServerProcess, strength: float = 1.0) -> str:
    once = RetryPolicy(attempts=1)
    with AuditClient(server.grpc, on_unavailable="raise", timeout=120, retry=once) as client:
        try:
            return client.audit_file(FILE, strength=strength).verdict.name
        except AuditError as error:
            return error.reason


def test_a_store_without_room_is_not_ready(
    tmp_path: Path, small_disk: Path, fill_disk: Callable[[Path], Path]
) -> None:
    (state := tmp_path / "state").mkdir()
    (state / "store").symlink_to(small_disk)
    with forked_server(state) as server:
        assert ready(server)
        ballast = fill_disk(small_disk)
        assert "no room" in not_ready(server, "store")
        assert ask(server) == "DISK_FULL"
        ballast.unlink()
        assert ready(server)
        assert not list(small_disk.glob("incoming-*"))


def test_a_database_without_room_is_not_ready(
    start: Callable[..., ServerProcess], small_disk: Path, fill_disk: Callable[[Path], Path]
) -> None:
    server = start(DATABASE_URL=f"sqlite:///{small_disk}/loragate.sqlite3")
    assert ready(server)
    ballast = fill_disk(small_disk)
    assert "no room" in not_ready(server, "record")
    ballast.unlink()
    assert ready(server)
    assert ask(server) == Verdict.ALLOW.name


def test_a_server_that_can_open_no_more_files_is_not_ready(
    start: Callable[..., ServerProcess],
) -> None:
    server = start()
    assert ask(server) == Verdict.ALLOW.name
    assert ready(server)
    before = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    highest = max(int(one.name) for one in Path(f"/proc/{server.pid}/fd").iterdir())
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (highest + 8, before[1]))
    assert "more files can be opened" in not_ready(server, "descriptors")
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, before)
    assert ready(server)
    assert ask(server, strength=0.9) == Verdict.ALLOW.name


@pytest.mark.parametrize("part", ["store", "intake", "descriptors", "record", "worker"])
def test_each_part_that_a_question_needs_is_asked(server: ServerProcess, part: str) -> None:
    status, parts = readyz(server)
    assert status == 200
    assert parts[part] == "ok"
