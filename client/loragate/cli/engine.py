"""The engine of a scan: a server of its own on a socket, which ends with the scan."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TextIO

from loragate.cli.engine_config import (
    SERVER,
    EngineError,
    EngineSettings,
    environment,
    package_folder,
    write_config,
)

Say = Callable[[str], None]
"""Told what the engine does while it starts."""

START_LIMIT_S = 3600.0
"""A first start builds probes: a minute for the embedded base model, more for a large one."""

_STOP_LIMIT_S = 3.0
"""What was decided is on disk before it is answered, so nothing is lost with what hangs then."""

_LONGEST_SOCKET = 100
"""Bytes of a path that a socket may have; systems allow 103 to 107."""

_LOOK_EVERY_S = 0.1
_LAST_LINES = 12

_READY = re.compile(rb"^loragate-server ready: .*http=(\S+)\n", re.MULTILINE)
_STDERR, _WARNING = "stderr", "warning: "
"""How the engine's log calls what was written past it, and how warnings among that begin."""


@dataclass(frozen=True)
class Engine:
    """An engine that is ready.

    Attributes:
        target: its address.
        metrics: address of its metrics.
        log: file that receives its log.
        started_s: seconds that the start took.
    """

    target: str
    metrics: str
    log: Path
    started_s: float
    _process: subprocess.Popen[bytes]

    @property
    def has_ended(self) -> bool:
        """Whether it ended by itself, which it never should."""
        return self._process.poll() is not None

    def warnings(self) -> list[str]:
        """What it warned of, in order."""
        return [said for level, said in _lines(self.log) if level == "warning"]


@contextmanager
def engine(settings: EngineSettings, say: Say) -> Iterator[Engine]:
    """Starts the engine; whichever way the block is left, it is gone afterwards.

    Raises:
        EngineError: it is not installed, did not start, or another scan holds the folder for an
            hour.
    """
    package_folder()
    began = time.monotonic()
    with alone(settings.state, say), _socket(settings.state) as socket:
        config = write_config(settings, socket)
        log = settings.state / "engine.log"
        with log.open("wb") as errors, _process(config, errors) as process:
            http = _wait_until_ready(process, log, say)
            metrics = f"http://{http}/metrics"
            yield Engine(f"unix:{socket}", metrics, log, time.monotonic() - began, process)


@contextmanager
def alone(state: Path, say: Say) -> Iterator[None]:
    """Waits until no other scan uses the folder: two would answer by records of each other.

    Raises:
        EngineError: another uses it for an hour.
    """
    import fcntl  # not on every system on which the client runs

    began = time.monotonic()
    with (state / "lock").open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() - began > START_LIMIT_S:
                    raise EngineError(
                        f"Another scan still uses {state}. Wait for it, or name another folder "
                        "with --state."
                    ) from None
            say(f"waiting for another scan that uses {state}")
            time.sleep(_LOOK_EVERY_S)
        yield


@contextmanager
def _socket(state: Path) -> Iterator[Path]:
    """A place for the socket that only this user can reach; nothing of it stays."""
    place = state / "engine.sock"
    folder = None
    if len(os.fsencode(place)) > _LONGEST_SOCKET:
        folder = tempfile.mkdtemp(prefix="loragate-", dir="/tmp")
        place = Path(folder) / "engine.sock"
    try:
        yield place
    finally:
        with contextlib.suppress(FileNotFoundError):
            place.unlink()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _process(config: Path, errors: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """The server, which ends with this block, or with this process if that is killed."""
    # -P: nothing in the present folder, which may be a stranger's, is taken for a module.
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-P", "-m", SERVER, "serve", "--until-eof", "--config", str(config)],
        env=environment(os.environ),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        start_new_session=True,  # else Ctrl-C would reach both, and it would end first
    )
    try:
        yield process
    finally:
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> int:
    """Its exit status, once it has ended by itself or too late."""
    try:
        return process.wait(_STOP_LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], log: Path, say: Say) -> str:
    """Waits until the engine says that it can decide; returns the address of its HTTP port."""
    assert process.stdout is not None  # noqa: S101 (it was asked for)
    began = time.monotonic()
    said = b""
    while not (ready := _READY.search(said)):
        waited_s = time.monotonic() - began
        if select.select([process.stdout], [], [], _LOOK_EVERY_S)[0]:
            piece = os.read(process.stdout.fileno(), 4096)
            if not piece:
                raise EngineError(f"The engine did not start: {_why(process, log)}")
            said += piece
        elif waited_s > START_LIMIT_S:
            raise EngineError(f"The engine was not ready within an hour; its log is {log}.")
        say(f"starting the engine, {waited_s:.0f} s: {_stage(log)}")
    return ready[1].decode()


def _stage(log: Path) -> str:
    """What it does now, in its own words."""
    return next((said for _, said in reversed(_lines(log))), "loading")


def _why(process: subprocess.Popen[bytes], log: Path) -> str:
    """Why it ended: what it said of it."""
    code = _end(process)  # its output has ended, which it may outlive
    said = [line for level, line in _lines(log) if level in ("error", "")]
    said = [line.removeprefix("loragate-server: ") for line in said]
    return " ".join(said[-_LAST_LINES:]) or f"it ended with {code} and said nothing; see {log}."


def _lines(log: Path) -> list[tuple[str, str]]:
    """Level and message of each line; the level is empty for what was said past the log."""
    try:
        with log.open(encoding="utf-8", errors="replace") as file:
            return [_line(text) for text in _last(file)]
    except OSError:
        return []


def _last(file: TextIO) -> deque[str]:
    return deque((line.strip() for line in file if line.strip()), maxlen=200)


def _line(text: str) -> tuple[str, str]:
    try:
        fields = json.loads(text)
        level, message = str(fields["level"]).lower(), str(fields["message"])
        said = fields["logger"] == _STDERR
    except (ValueError, TypeError, KeyError):
        level, message, said = "", text, True  # before the log was set up
    if not said:
        return (level, message)
    plain = message.removeprefix(_WARNING)
    return ("warning" if plain != message else "", plain)
