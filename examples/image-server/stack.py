"""Starts loragate, the example image server and a proxy in front of it, on loopback.

    python examples/image-server/stack.py nginx

Runs until SIGINT or SIGTERM. A configuration is used as it stands, but for its port numbers: where
the environment names another port, that is written in the place of the default, and CHECK_TIMEOUT_S
where it says how many seconds a check may take. With IMAGE_SERVER=own no image server is started,
and whatever listens on its port is guarded; EXTRACTOR says how its requests are read. With
LORAGATE=own no loragate is started either: its words, environment and log are printed, and it is
waited for until that log says that it is ready.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType, MappingProxyType

EXAMPLES = Path(__file__).resolve().parents[1]
DEFAULT_PORTS = MappingProxyType(
    {
        "PROXY_PORT": 8080,
        "IMAGE_SERVER_PORT": 30000,
        "IMAGE_SERVER_GRPC_PORT": 30001,
        "LORAGATE_GRPC_PORT": 50051,
        "LORAGATE_HTTP_PORT": 9464,
        "RELAY_PORT": 9470,
    }
)
# One worker thread, and no hot restart, which wants shared memory of its own.
_ENVOY = ("{bin}/envoy", "--concurrency", "1", "--disable-hot-restart", "-l", "warn", "-c")
COMMANDS: Mapping[str, Sequence[str]] = MappingProxyType(
    {
        "envoy": (*_ENVOY, "envoy.yaml"),
        "envoy-rewrite": (*_ENVOY, "envoy-rewrite.yaml"),
        "nginx": ("/usr/sbin/nginx", "-p", "{work}", "-c", "nginx.conf"),
        "haproxy": ("/usr/sbin/haproxy", "-db", "-f", "haproxy.cfg"),
    }
)
WITH_SOCKETS = frozenset({"comfyui", "vllm-omni"})
"""Extractors that read what clients send in a WebSocket."""
CHECK_TIMEOUT = re.compile(r"((?:proxy_read_timeout |timeout: |TIMEOUT_S = ))10(?=s?$|s?;)", re.M)
"""Where the configurations say how long a check may take; nothing else of theirs is 10 s."""
LUA_TIMEOUT = re.compile(r"(\btune\.lua\.session-timeout )15(?=s$)", re.M)
"""HAProxy's for the script that checks, which has to be longer."""
START_LIMIT_S = 120.0
STOP_LIMIT_S = 30.0


def ports() -> dict[str, int]:
    """The ports that the environment names, and the defaults of the others."""
    return {name: int(os.environ.get(name, default)) for name, default in DEFAULT_PORTS.items()}


def copy_configuration(folder: Path, work: Path, chosen: Mapping[str, int]) -> None:
    """Copies the files of a proxy's folder with the chosen ports and time limit in them."""
    check_s = int(os.environ.get("CHECK_TIMEOUT_S") or 10)
    numbers = {str(DEFAULT_PORTS[name]): str(port) for name, port in chosen.items()}
    pattern = re.compile(rf"\b({'|'.join(numbers)})\b")
    for file in folder.iterdir():
        if file.is_file() and file.suffix in (".yaml", ".conf", ".cfg", ".js", ".lua"):
            text = pattern.sub(lambda match: numbers[match[1]], file.read_text())
            text = CHECK_TIMEOUT.sub(rf"\g<1>{check_s}", text)
            text = LUA_TIMEOUT.sub(rf"\g<1>{check_s + 5}", text)
            (work / file.name).write_text(text)


@contextmanager
def running(
    name: str, command: Sequence[str], work: Path, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is stopped when the context ends; what it prints goes to `NAME.log`."""
    with (work / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603
            command,
            cwd=work,
            env={**os.environ, **environment},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches this script alone, which stops in order
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGCONT)  # one that is suspended cannot stop
        process.terminate()
        try:
            process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def await_port(name: str, process: subprocess.Popen[bytes], port: int, work: Path) -> None:
    """Waits until a port takes connections.

    Raises:
        RuntimeError: the process ended, or took too long; the text holds its log.
    """
    deadline = time.monotonic() + START_LIMIT_S
    while process.poll() is None and time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise RuntimeError(f"{name} did not start:\n{(work / f'{name}.log').read_text()}")


def await_loragate(process: subprocess.Popen[bytes] | None, log: Path) -> None:
    """Waits until loragate says that it can decide, which is later than its ports open."""
    deadline = time.monotonic() + START_LIMIT_S
    while (process is None or process.poll() is None) and time.monotonic() < deadline:
        if "loragate-server ready:" in log.read_text():
            return
        time.sleep(0.1)
    raise RuntimeError(f"loragate did not start:\n{log.read_text()}")


def relay(
    environment: Mapping[str, str], proxy: str, chosen: Mapping[str, int]
) -> dict[str, dict[str, object]]:
    """The port for WebSockets, which the proxies know; it rewrites where Envoy does."""
    entry: dict[str, object] = {
        "listen": f"127.0.0.1:{chosen['RELAY_PORT']}",
        "upstream": f"http://127.0.0.1:{chosen['IMAGE_SERVER_PORT']}",
        "rewrite": proxy.endswith("-rewrite"),
    }
    return {environment["LORAGATE_INTERCEPT__DEFAULT_EXTRACTOR"]: entry}


def start(proxy: str, chosen: Mapping[str, int], work: Path, stack: ExitStack) -> dict[str, int]:
    """Starts all three; returns their process ids."""
    adapters = os.environ.get("ADAPTERS", str(EXAMPLES / "adapters"))
    cache = Path(tempfile.gettempdir()) / f"loragate-probes-{os.getuid()}"
    environment = {
        "OMP_WAIT_POLICY": "passive",
        "LORAGATE_STATE_DIR": str(work / "state"),
        "LORAGATE_CACHE_DIR": os.environ.get("LORAGATE_CACHE_DIR", str(cache)),
        "LORAGATE_INTAKE__ROOTS": json.dumps([adapters]),
        "LORAGATE_LISTEN__GRPC": f"127.0.0.1:{chosen['LORAGATE_GRPC_PORT']}",
        "LORAGATE_LISTEN__HTTP": f"127.0.0.1:{chosen['LORAGATE_HTTP_PORT']}",
    }
    here, api = EXAMPLES / "image-server", os.environ.get("LORA_API", "sglang")
    environment["LORAGATE_INTERCEPT__DEFAULT_EXTRACTOR"] = os.environ.get("EXTRACTOR", api)
    if limit := os.environ.get("CHECK_TIMEOUT_S"):
        environment["LORAGATE_INTERCEPT__HTTP_TIMEOUT_S"] = limit
    words = ["serve", "--config", str(here / "loragate.yaml")]
    if environment["LORAGATE_INTERCEPT__DEFAULT_EXTRACTOR"] in WITH_SOCKETS:
        environment["LORAGATE_INTERCEPT__RELAYS"] = json.dumps(relay(environment, proxy, chosen))
    commands = {
        "loragate": [sys.executable, "-m", "loragate_server", *words],
        "image-server": [
            *(sys.executable, str(here / "server.py")),
            *("--port", str(chosen["IMAGE_SERVER_PORT"]), "--lora-api", api),
        ],
        "proxy": [
            word.format(bin=Path(sys.executable).parent, work=work) for word in COMMANDS[proxy]
        ],
    }
    if os.environ.get("IMAGE_SERVER") == "own":
        del commands["image-server"]
    log = work / "loragate.log"
    if os.environ.get("LORAGATE") == "own":
        del commands["loragate"]
        log.touch()
        own = {"words": words, "environment": environment, "log": str(log)}
        print("loragate: " + json.dumps(own), flush=True)
    processes = {
        name: stack.enter_context(running(name, command, work, environment))
        for name, command in commands.items()
    }
    await_loragate(processes.get("loragate"), log)
    if "image-server" in processes:
        await_port("image-server", processes["image-server"], chosen["IMAGE_SERVER_PORT"], work)
    await_port("proxy", processes["proxy"], chosen["PROXY_PORT"], work)
    return {name: process.pid for name, process in processes.items()}


def stop(_: int, __: FrameType | None) -> None:
    """Leaves all contexts, innermost first."""
    raise SystemExit(0)


def main() -> None:
    """Runs until it is told to stop."""
    if len(sys.argv) != 2 or sys.argv[1] not in COMMANDS:
        raise SystemExit(f"usage: stack.py {'|'.join(COMMANDS)}")
    proxy, chosen = sys.argv[1], ports()
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="loragate-stack-")))
        copy_configuration(EXAMPLES / proxy.removesuffix("-rewrite"), work, chosen)
        try:
            pids = start(proxy, chosen, work, stack)
        except RuntimeError as error:
            raise SystemExit(f"stack: {error}") from None
        print(
            "ready: " + json.dumps({"ports": chosen, "pids": pids, "logs": str(work)}), flush=True
        )
        signal.pause()


if __name__ == "__main__":
    main()
