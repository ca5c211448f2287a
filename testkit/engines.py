"""Engines of `loragate scan` that are forked: ready in a second in place of nine.

The client starts its engine by `sys.executable`. In the commands that are made here that is a
program which has it forked from a process that has loaded everything, hands on what it was given
(pipes, folder, environment) and lives exactly as long as the engine.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import shlex
import shutil
import socket
import sys
import tempfile
from multiprocessing import context, get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path

from testkit import forking_python
from testkit.servers import become, fork_server

COLD = (sys.executable, "-P", "-m", "loragate")
"""The command as a person has it. Its engine takes seconds to load."""


def forking() -> tuple[str, ...]:
    """The same command with an engine that is forked."""
    start = f"import sys; sys.executable = {_python()!r}; from loragate.cli import main; "
    return (sys.executable, "-P", "-c", start + "sys.exit(main(sys.argv[1:]))")


@functools.cache
def _python() -> str:
    """The program that has engines forked, and behind it the process that forks them."""
    folder = Path(tempfile.mkdtemp(prefix="loragate-engines-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    place, program = folder / "socket", folder / "python"
    words = shlex.join((sys.executable, "-IS", forking_python.__file__, str(place)))
    program.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    program.chmod(0o700)
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(place))
        door.listen()
        nursery = fork_server.Process(target=_fork_engines, args=(door,))
        nursery.start()
    atexit.register(nursery.kill)
    return str(program)


def _fork_engines(door: socket.socket) -> None:
    """Forks an engine for everybody who asks, until the tests have ended."""
    above = parent_process()
    assert above is not None
    engines: dict[int, tuple[socket.socket, context.ForkProcess]] = {}
    while True:
        askers = {asker.fileno(): process for asker, process in engines.values()}
        for one in wait([door, above.sentinel, *engines, *askers]):
            if one is door:
                asker, process = _fork_engine(door)
                engines[process.sentinel] = asker, process
            elif one in askers:  # who asked is gone
                askers[one].kill()
            elif one in engines:
                asker, process = engines.pop(one)
                process.join()
                with asker, contextlib.suppress(BrokenPipeError):
                    asker.sendall(str(process.exitcode).encode())
        if not above.is_alive():
            for _, process in engines.values():
                process.kill()
            return


def _fork_engine(door: socket.socket) -> tuple[socket.socket, context.ForkProcess]:
    """For the next who asks; it has what they have, and this process nothing of it."""
    asker, _ = door.accept()
    _, streams, _, _ = socket.recv_fds(asker, 1, 3)
    with asker.makefile() as lines:
        asked = json.loads(lines.readline())
    process = get_context("fork").Process(target=_engine, args=(streams,), kwargs=asked)
    process.start()
    for stream in streams:
        os.close(stream)
    return asker, process


def _engine(
    streams: list[int], *, words: list[str], folder: str, variables: dict[str, str]
) -> None:
    os.setsid()
    os.chdir(folder)
    for own, given in enumerate(streams):
        os.dup2(given, own)
        os.close(given)
    sys.stdin = os.fdopen(0, closefd=False)
    become(words, variables)
