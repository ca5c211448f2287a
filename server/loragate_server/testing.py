"""A real server process for demos, benchmarks and tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

START_LIMIT_S = 600.0
"""The first start builds probes, for a minute on two cores and for several on a busy machine."""
STOP_LIMIT_S = 30.0
SHARED_CACHE = Path(tempfile.gettempdir()) / f"loragate-probes-{os.getuid()}"


@dataclass(frozen=True)
class ServerProcess:
    """A server that is ready to answer.

    Attributes:
        grpc: address of the gRPC port, for example "127.0.0.1:41233".
        http: address of the HTTP port.
        pid: process id.
        log: file that receives the server's log.
    """

    grpc: str
    http: str
    pid: int
    log: Path
    _wait: Callable[[float], int] = field(repr=False, compare=False)

    def wait(self) -> int:
        """The exit status of the process, after it has ended by itself or by a signal.

        Raises:
            subprocess.TimeoutExpired: it has not ended within 30 s.
        """
        return self._wait(STOP_LIMIT_S)


@contextmanager
def server_process(
    state: Path,
    settings: Mapping[str, str] | None = None,
    *,
    config: Path | None = None,
    program: Sequence[str] = ("-m", "loragate_server"),
) -> Iterator[ServerProcess]:
    """Starts `loragate-server serve` on free loopback ports; stops it with SIGTERM.

    Args:
        state: folder for everything the server writes.
        settings: further environment variables, for example `LORAGATE_GATE__QUEUE_LIMIT`.
        config: configuration file.
        program: what Python runs instead of the command `loragate-server`.

    Raises:
        RuntimeError: the server ended or was not ready within 600 s; the message holds its log.
    """
    command = [sys.executable, *program, *arguments(config)]
    log_path = state / "server.log"
    with log_path.open("w") as log:
        process = subprocess.Popen(  # noqa: S603
            command,
            env=environment(state, settings),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        try:
            grpc, http = addresses(process.stdout or (), process.kill, log_path)
            yield ServerProcess(grpc, http, process.pid, log_path, process.wait)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(timeout=STOP_LIMIT_S)
            if process.stdout is not None:
                process.stdout.close()


def environment(state: Path, settings: Mapping[str, str] | None) -> dict[str, str]:
    """The environment of a server that writes to `state`."""
    return os.environ | {
        # probes and gradients depend on content alone: servers that start one after the other
        # need not build them again
        "LORAGATE_CACHE_DIR": os.environ.get("LORAGATE_CACHE_DIR", str(SHARED_CACHE)),
        "LORAGATE_STATE_DIR": str(state),
        "LORAGATE_LISTEN__GRPC": "127.0.0.1:0",
        "LORAGATE_LISTEN__HTTP": "127.0.0.1:0",
        **(settings or {}),
    }


def arguments(config: Path | None) -> list[str]:
    """What follows the name of the command."""
    return ["serve"] if config is None else ["serve", "--config", str(config)]


def addresses(lines: Iterable[str], kill: Callable[[], None], log: Path) -> tuple[str, str]:
    """The gRPC and the HTTP address that a server says on standard output.

    Raises:
        RuntimeError: it ended or was not ready within 600 s; the message holds its log.
    """
    # Reading blocks while the server is silent; killing it ends that.
    limit = threading.Timer(START_LIMIT_S, kill)
    limit.start()
    try:
        for line in lines:
            if line.startswith("loragate-server ready:"):
                words = dict(word.split("=", 1) for word in line.split() if "=" in word)
                return words["grpc"], words["http"]
    finally:
        limit.cancel()
    kill()
    raise RuntimeError(f"the server did not become ready; its log:\n{log.read_text()}")
