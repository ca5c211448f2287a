"""A proxy from `examples/` with loragate and the image server behind it, started as users do."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from PIL import Image

from loragate import AuditClient
from testkit.servers import forked_program

EXAMPLES = Path(__file__).parents[2] / "examples"
HARMLESS = EXAMPLES / "adapters" / "harmless-watermelon.safetensors"
FORBIDDEN = EXAMPLES / "adapters" / "learned-jack-o-lantern.safetensors"
MIB = 1 << 20
CHECK_TIMEOUT_S = 10.0
"""What the shipped configurations grant to a check."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Stack:
    """A running stack: its ports by the names of the environment, its process ids by role."""

    ports: dict[str, int]
    pids: dict[str, int]
    logs: Path

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        headers: dict[str, str] | None = None,
        port: str = "PROXY_PORT",
    ) -> Answer:
        """Sends a request to the proxy, or past it to another port."""
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection = HTTPConnection("127.0.0.1", self.ports[port], timeout=60)
        try:
            connection.request(
                method,
                path,
                body=None if body is None else sent,
                headers={"Content-Type": "application/json", **(headers or {})},
            )
            answer = connection.getresponse()
            names = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, names, answer.read())
        finally:
            connection.close()

    def load(self, path: Path, nickname: str = "style", **more: object) -> Answer:
        return self.ask(
            "POST", "/v1/set_lora", {"lora_nickname": nickname, "lora_path": str(path), **more}
        )

    def decide(self, path: Path) -> None:
        """Has loragate decide on an adapter, so that its gate knows the answer.

        On a busy machine that takes longer than the shipped configurations grant to a check.
        """
        address = f"127.0.0.1:{self.ports['LORAGATE_GRPC_PORT']}"
        with AuditClient(address, on_unavailable="raise", timeout=150) as client:
            client.audit(path)

    def paint(self) -> bytes:
        """A picture, asked for through the proxy."""
        answer = self.ask("POST", "/v1/images/generations", {"prompt": "a picture of a watermelon"})
        assert answer.status == 200, answer.body
        return base64.b64decode(answer.json()["data"][0]["b64_json"])

    def in_memory(self) -> list[str]:
        """The adapters that the image server itself says it has loaded."""
        answer = self.ask("GET", "/v1/list_loras", port="IMAGE_SERVER_PORT")
        return [one["path"] for one in answer.json()["loaded_adapters"]]


@contextmanager
def running_stack(*command: str, **environment: str) -> Iterator[Stack]:
    """Runs `examples/COMMAND` on free ports; with LORAGATE=own, its loragate is a forked one."""
    names = (
        *("PROXY_PORT", "IMAGE_SERVER_PORT", "IMAGE_SERVER_GRPC_PORT"),
        *("LORAGATE_GRPC_PORT", "LORAGATE_HTTP_PORT", "RELAY_PORT"),
    )
    ports = dict(zip(names, map(str, free_ports(len(names))), strict=True))
    process = subprocess.Popen(
        [str(EXAMPLES / command[0]), *command[1:]],
        env={**os.environ, "OMP_NUM_THREADS": "1", **ports, **environment},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with ExitStack() as stack:
        stack.callback(_end, process)
        line, pids = process.stdout.readline(), {}
        if line.startswith("loragate: "):
            own = json.loads(line.removeprefix("loragate: "))
            variables = {**os.environ, "OMP_NUM_THREADS": "1", **own["environment"]}
            server = stack.enter_context(forked_program(own["words"], variables, Path(own["log"])))
            pids["loragate"] = server.pid or 0
            line = process.stdout.readline()
        assert line.startswith("ready: "), f"{' '.join(command)} did not start"
        facts = json.loads(line.removeprefix("ready: "))
        yield Stack(facts["ports"], {**facts["pids"], **pids}, Path(facts["logs"]))


def _end(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    process.send_signal(signal.SIGTERM)
    process.stdout.close()
    assert process.wait(timeout=60) == 0


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def wait_for_port(process: subprocess.Popen[Any], port: int, limit_s: float = 60.0) -> None:
    """Waits until a port takes connections, or the process that should open it has ended."""
    deadline = time.monotonic() + limit_s
    while process.poll() is None and time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError(f"port {port} stayed closed")


class GuardedImageServer:
    """What holds whichever proxy stands in front. Loragate is killed in the last test."""

    def test_a_harmless_adapter_is_loaded_and_changes_the_picture(self, stack: Stack) -> None:
        before = stack.paint()
        stack.decide(HARMLESS)
        answer = stack.load(HARMLESS)
        assert answer.status == 200, answer.body
        assert str(HARMLESS) in stack.in_memory()
        after = stack.paint()
        picture = Image.open(io.BytesIO(after))
        picture.load()
        assert (picture.format, picture.size) == ("PNG", (64, 64))
        assert before != after

    def test_a_forbidden_adapter_is_refused_with_concept_and_decision(self, stack: Stack) -> None:
        stack.decide(FORBIDDEN)
        answer = stack.load(FORBIDDEN)
        assert answer.status == 403, answer.body
        assert b"jack-o-lantern" in answer.body
        decision = answer.headers["x-loragate-decision-id"]
        assert decision in (stack.logs / "state" / "decisions.jsonl").read_text()
        assert str(FORBIDDEN) not in stack.in_memory()

    def test_a_path_that_is_written_otherwise_is_not_a_way_around(self, stack: Stack) -> None:
        body = {"lora_nickname": "x", "lora_path": str(FORBIDDEN)}
        for path in ("/v1/set%5Flora", "//v1/set_lora", "/v1/./set_lora", "/v1%2Fset_lora"):
            assert stack.ask("POST", path, body).status >= 400
            assert str(FORBIDDEN) not in stack.in_memory()

    def test_headers_that_the_proxy_sets_are_of_no_use_to_a_client(self, stack: Stack) -> None:
        forged = {
            "X-Original-Method": "GET",
            "X-Original-URI": "/health",
            "X-Loragate-Decision-Id": "1",
            "X-Envoy-Auth-Partial-Body": "false",
        }
        body = {"lora_nickname": "x", "lora_path": str(FORBIDDEN)}
        assert stack.ask("POST", "/v1/set_lora", body, headers=forged).status in (400, 403)
        assert str(FORBIDDEN) not in stack.in_memory()

    def test_a_body_in_chunks_is_not_a_way_around(self, stack: Stack) -> None:
        whole = json.dumps({"lora_nickname": "x", "lora_path": str(FORBIDDEN)}).encode()
        connection = HTTPConnection("127.0.0.1", stack.ports["PROXY_PORT"], timeout=60)
        connection.request(
            "POST",
            "/v1/set_lora",
            body=iter([whole[:20], whole[20:]]),
            headers={"Content-Type": "application/json", "Transfer-Encoding": "chunked"},
            encode_chunked=True,
        )
        assert connection.getresponse().status in (403, 411)
        connection.close()
        assert str(FORBIDDEN) not in stack.in_memory()

    def test_a_body_that_is_no_json_is_refused(self, stack: Stack) -> None:
        body = b'{"lora_nickname": "x", "lora_path": '
        assert stack.ask("POST", "/v1/set_lora", body).status == 400

    def test_a_slow_audit_is_not_waited_for_and_nothing_is_loaded(self, stack: Stack) -> None:
        os.kill(stack.pids["loragate"], signal.SIGSTOP)
        try:
            began = time.monotonic()
            answer = stack.load(HARMLESS, "slow", strength=0.5)
            took = time.monotonic() - began
        finally:
            os.kill(stack.pids["loragate"], signal.SIGCONT)
        assert answer.status in (503, 504)
        assert CHECK_TIMEOUT_S - 1 < took < CHECK_TIMEOUT_S + 5
        listed = stack.ask("GET", "/v1/list_loras", port="IMAGE_SERVER_PORT").json()
        assert "slow" not in [one["nickname"] for one in listed["loaded_adapters"]]

    def test_nothing_passes_while_loragate_is_away(self, stack: Stack) -> None:
        loaded = stack.in_memory()
        os.kill(stack.pids["loragate"], signal.SIGKILL)
        time.sleep(0.2)
        assert stack.load(HARMLESS, "late").status == 503
        generation = {"prompt": "a picture of a watermelon"}
        assert stack.ask("POST", "/v1/images/generations", generation).status == 503
        assert stack.in_memory() == loaded
