"""The real server process, from its first line to its last."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from loragate_server.testing import SHARED_CACHE, ServerProcess, server_process
from testkit.servers import forked_command

COMMAND = [sys.executable, "-m", "loragate_server", "serve"]


def environment(state: Path, **settings: str) -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("LORAGATE_")}
    return clean | {
        "LORAGATE_STATE_DIR": str(state),
        "LORAGATE_CACHE_DIR": str(SHARED_CACHE),
        "LORAGATE_LISTEN__GRPC": "127.0.0.1:0",
        "LORAGATE_LISTEN__HTTP": "127.0.0.1:0",
        **settings,
    }


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with server_process(tmp_path_factory.mktemp("state")) as process:
        yield process


def get(server: ServerProcess, path: str) -> tuple[int, str]:
    with urllib.request.urlopen(f"http://{server.http}{path}", timeout=10) as response:
        return response.status, response.read().decode()


def test_it_says_where_it_listens_when_it_is_ready(server: ServerProcess) -> None:
    status, body = get(server, "/readyz")
    assert status == 200
    assert json.loads(body) == {
        "ready": True,
        "parts": dict.fromkeys(
            ["models", "policy", "grpc", "record", "worker", "intake", "store", "descriptors"], "ok"
        ),
        "notes": {"calibration of emoji-tiny": "ok"},
    }


def test_its_health_is_serving(server: ServerProcess) -> None:
    with grpc.insecure_channel(server.grpc) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", "loragate.v1.AuditService"):
            answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_its_metrics_tell_what_it_serves(server: ServerProcess) -> None:
    _, page = get(server, "/metrics")
    assert "loragate_ready 1.0" in page
    assert 'loragate_base_model_info{device="cpu"' in page
    assert 'loragate_kernel_info{backend="reference"} 1.0' in page
    assert "loragate_policy_last_reload_success 1.0" in page


def test_what_it_writes_is_for_its_owner_alone(server: ServerProcess) -> None:
    state = server.log.parent
    for name in ("loragate.sqlite3", "decisions.jsonl"):
        assert (state / name).stat().st_mode & 0o077 == 0, name


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(tmp_path: Path, how: signal.Signals) -> None:
    with subprocess.Popen(
        COMMAND,
        env=environment(tmp_path, LORAGATE_LOG__FORMAT="json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        lines: list[str] = []
        # Read beside, or a full pipe would stop the server.
        reader = threading.Thread(target=lambda: lines.extend(process.stderr or ()))
        reader.start()
        assert process.stdout is not None
        assert process.stdout.readline().startswith("loragate-server ready: grpc=127.0.0.1:")
        process.send_signal(how)
        assert process.wait(timeout=30) == 0
        reader.join()
    messages = [json.loads(line)["message"] for line in lines]
    assert f"got {how.name}; draining" in messages
    assert not any("Traceback" in line for line in lines)


def test_it_answers_over_http_while_it_loads_and_can_be_stopped_then(tmp_path: Path) -> None:
    port = free_port()
    with subprocess.Popen(
        COMMAND,
        env=environment(
            tmp_path,
            LORAGATE_LISTEN__HTTP=f"127.0.0.1:{port}",
            LORAGATE_CACHE_DIR=str(tmp_path),  # empty, so that loading takes a while
        ),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        status, parts = first_readiness(port, process)
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=60)
    assert status == 503
    assert parts["grpc"] == "not begun"
    assert "ready" not in stdout
    assert process.returncode == 0, stderr


@pytest.mark.parametrize("when", ["while it loads", "when it is ready"])
def test_it_ends_with_the_program_that_holds_its_standard_input(tmp_path: Path, when: str) -> None:
    with subprocess.Popen(
        [*COMMAND, "--until-eof"],
        env=environment(tmp_path),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        if when == "when it is ready":
            assert process.stdout.readline().startswith("loragate-server ready:")
            process.stdin.write("what comes is read and means nothing\n")
            process.stdin.flush()
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(timeout=0.5)
        process.stdin.close()
        # Before it listens for signals the signal ends it; afterwards it ends in order.
        wanted = 0 if when == "when it is ready" else -signal.SIGTERM
        assert process.wait(timeout=60) == wanted


def free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def first_readiness(port: int, process: subprocess.Popen[str]) -> tuple[int, dict[str, str]]:
    """The first answer that /readyz gives."""
    for _ in range(1200):
        assert process.poll() is None
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
                return answer.status, json.load(answer)["parts"]
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)["parts"]
        except urllib.error.URLError:
            time.sleep(0.05)
    raise AssertionError("the HTTP port did not open")


@pytest.mark.parametrize(
    ("settings", "code", "said"),
    [
        ({"LORAGATE_LISTEN__GRPC": "0.0.0.0:0"}, 2, "is not on loopback"),
        ({"LORAGATE_POLICY": "/nonexistent.yaml"}, 3, "nonexistent.yaml"),
        ({"LORAGATE_LIBRARY": "/nonexistent"}, 3, "concept library /nonexistent"),
        (
            {"LORAGATE_BASE_MODELS": '[{"name": "x", "folder": "/nonexistent"}]'},
            3,
            "base model x: /nonexistent",
        ),
        ({"LORAGATE_DATABASE_URL": "mysql://u:geheim@h/d"}, 3, "'mysql'"),
        ({"LORAGATE_KERNEL_BACKEND": "triton"}, 3, "kernel_backend: "),
        ({"LORAGATE_STATE_DIR": "/proc/nothing"}, 3, "state_dir /proc/nothing"),
    ],
)
def test_it_does_not_start_with_what_it_cannot_use(
    tmp_path: Path, settings: dict[str, str], code: int, said: str
) -> None:
    done = forked_command(["serve"], environment(tmp_path, **settings))
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "ready" not in done.stdout
    assert "geheim" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use_is_said_and_not_shared(server: ServerProcess, tmp_path: Path) -> None:
    for name, address in (("GRPC", server.grpc), ("HTTP", server.http)):
        done = forked_command(
            ["serve"], environment(tmp_path, **{f"LORAGATE_LISTEN__{name}": address})
        )
        assert done.returncode == 3
        assert f"cannot listen on {address}" in done.stderr
