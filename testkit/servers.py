"""Servers that are forked from a process which has loaded everything: ready in half a second.

The process that they are forked from has no threads. It is made once for a test run; the first
server waits for it, as it would for its own imports.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory

from loragate_server.testing import (
    STOP_LIMIT_S,
    ServerProcess,
    addresses,
    arguments,
    environment,
)

fork_server = multiprocessing.get_context("forkserver")
"""What is started in it has everything loaded, and no thread."""
fork_server.set_forkserver_preload(["testkit.preloaded"])


@contextmanager
def forked_server(
    state: Path, settings: Mapping[str, str] | None = None, *, config: Path | None = None
) -> Iterator[ServerProcess]:
    """As `server_process`, which starts a server as an operator does and takes seconds for it."""
    log = state / "server.log"
    log.touch()
    reader, writer = fork_server.Pipe(duplex=False)
    process = fork_server.Process(
        target=_serve, args=(environment(state, settings), arguments(config), log, writer)
    )
    process.start()
    writer.close()

    def wait(limit_s: float) -> int:
        process.join(limit_s)
        if process.exitcode is None:
            raise subprocess.TimeoutExpired("loragate-server", limit_s)
        return process.exitcode

    with os.fdopen(os.dup(reader.fileno())) as lines:
        reader.close()
        try:
            grpc, http = addresses(lines, process.kill, log)
            yield ServerProcess(grpc, http, process.pid or 0, log, wait)
        finally:
            if process.exitcode is None:
                with contextlib.suppress(ProcessLookupError):  # it ends just now
                    os.kill(process.pid or 0, signal.SIGTERM)
            wait(STOP_LIMIT_S)


@contextmanager
def forked_program(
    words: Sequence[str], variables: Mapping[str, str], log: Path
) -> Iterator[BaseProcess]:
    """`loragate-server WORDS`, which is at work while the block runs, and killed after it.

    Args:
        words: of the command.
        variables: its environment.
        log: gets what it says.
    """
    process = fork_server.Process(target=_program, args=(dict(variables), list(words), log, log))
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join(STOP_LIMIT_S)


def forked_command(
    words: Sequence[str], variables: Mapping[str, str], limit_s: float = 170.0
) -> subprocess.CompletedProcess[str]:
    """Runs `loragate-server WORDS` to its end, as `subprocess.run` would.

    Raises:
        subprocess.TimeoutExpired: it has not ended in time.
    """
    with TemporaryDirectory() as folder:
        out, errors = Path(folder, "out"), Path(folder, "errors")
        process = fork_server.Process(
            target=_program, args=(dict(variables), list(words), errors, out)
        )
        process.start()
        process.join(limit_s)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(list(words), limit_s)
        return subprocess.CompletedProcess(
            list(words), process.exitcode, out.read_text(), errors.read_text()
        )


def _program(variables: dict[str, str], words: list[str], errors: Path, out: Path) -> None:
    with out.open("a") as file:
        _run(variables, words, errors, file.fileno())


def _serve(variables: dict[str, str], words: list[str], log: Path, writer: Connection) -> None:
    _run(variables, words, log, writer.fileno())


def _run(variables: dict[str, str], words: list[str], errors: Path, out: int) -> None:
    with errors.open("a") as file:
        os.dup2(file.fileno(), sys.stderr.fileno())
    os.dup2(out, sys.stdout.fileno())
    become(words, variables)


def become(words: list[str], variables: dict[str, str]) -> None:
    """What the forked process does: it becomes the command `loragate-server WORDS`."""
    if "loragate_server.app.serve" not in sys.modules:
        raise RuntimeError("testkit.preloaded could not be loaded; import it to see why")
    os.environ.clear()
    os.environ.update(variables)
    from loragate_server.cli.command import application

    application(words)
