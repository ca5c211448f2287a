"""A source that never answers takes the threads that read adapters, and nothing else."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from loragate import AdapterReference, AuditClient, AuditError, Verdict
from loragate_server.gate.intake import STUCK_S
from loragate_server.testing import ServerProcess

GOOD = Path(__file__).parents[2] / "examples" / "adapters" / "harmless-watermelon.safetensors"
GRACE_S = 1.0
THREADS = 4


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that takes every connection and never says a word."""
    end = threading.Event()
    taken: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        listening.settimeout(0.1)

        def take() -> None:
            while not end.is_set():
                try:
                    taken.append(listening.accept()[0])
                except TimeoutError:
                    continue

        thread = threading.Thread(target=take)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/a.safetensors"
        end.set()
        thread.join()
    for one in taken:
        one.close()


def parts(server: ServerProcess) -> tuple[int, dict[str, str]]:
    try:
        with urllib.request.urlopen(f"http://{server.http}/readyz", timeout=5) as answer:
            return answer.status, json.load(answer)["parts"]
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)["parts"]


def test_reads_that_never_end_are_told_of_and_do_not_keep_the_server_alive(
    start: Callable[..., ServerProcess], silent: str
) -> None:
    server = start(
        INTAKE__ENABLED_SCHEMES='["http"]',
        INTAKE__FETCH_TIMEOUT_S="3600",
        DRAIN_GRACE_S=str(GRACE_S),
        THREADS="1",
    )

    def ask(_: int) -> None:
        with (
            AuditClient(server.grpc, on_unavailable="raise", timeout=3) as client,
            pytest.raises(AuditError),
        ):
            client.audit(AdapterReference(uri=silent))

    with AuditClient(server.grpc, on_unavailable="raise", timeout=60) as client:
        assert client.audit(GOOD.read_bytes()).verdict is Verdict.ALLOW
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(ask, range(THREADS)))
    assert parts(server)[0] == 200  # a slow source is no fault yet
    until = time.monotonic() + STUCK_S + 10
    while parts(server)[0] == 200 and time.monotonic() < until:
        time.sleep(0.5)
    status, said = parts(server)
    assert status == 503
    assert f"all {THREADS} threads that read adapters are busy" in said["intake"]
    with urllib.request.urlopen(f"http://{server.http}/metrics", timeout=5) as answer:
        assert b"loragate_ready 1.0" in answer.read()
    told_s = time.monotonic()
    os.kill(server.pid, signal.SIGTERM)
    assert server.wait() == 0  # nobody waited any more
    assert time.monotonic() - told_s < GRACE_S + 5


STUCK = """
import asyncio, os, signal, time
from loragate_server import app, cli
from loragate_server.config import Config

async def serve(config, say_ready, asked, *rest):
    asyncio.ensure_future(asyncio.to_thread(time.sleep, 600))  # a look-up in a database that hangs
    await asyncio.sleep(0.1)
    os.kill(os.getpid(), signal.SIGTERM)
    await asked.wait()
    return True

app._serve = serve
asyncio.run(app.serve_until_signal(Config(drain_grace_s=0.5), print, cli._end_process))
"""


def test_a_process_with_a_thread_that_cannot_end_is_ended_after_its_time() -> None:
    began_s = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", STUCK], check=False, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 3
    assert "did not end within 6 s and is ended; threads: " in done.stderr
    assert "asyncio_0" in done.stderr
    assert time.monotonic() - began_s > 5.5
