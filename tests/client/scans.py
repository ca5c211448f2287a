"""Scans as a person runs them: the command, in a process of its own, and the shipped adapters."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from loragate_server.testing import SHARED_CACHE
from testkit.engines import forking
from testkit.waiting import at_most

ADAPTERS = Path(__file__).parents[2] / "examples" / "adapters"
HARMLESS = ADAPTERS / "harmless-watermelon.safetensors"
LEARNED = ADAPTERS / "learned-bomb.safetensors"


def surroundings(home: Path, **more: str) -> dict[str, str]:
    """The environment of a user who has nothing set; probes are those of all tests."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("LORAGATE_", "NO_COLOR"))}
    return clean | {
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / "cache"),
        "LORAGATE_CACHE_DIR": os.environ.get("LORAGATE_CACHE_DIR", str(SHARED_CACHE)),
        **more,
    }


def scan(
    *words: object,
    home: Path,
    within: Path | None = None,
    variables: Mapping[str, str] | None = None,
    command: Sequence[str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Runs `loragate scan WORDS` to its end, in the folder `within` or that of the user.

    Its engine is forked; with the command `COLD` it is started as a person's is.
    """
    return subprocess.run(
        [*(command or forking()), "scan", *map(str, words)],
        cwd=within or home,
        env=surroundings(home, **(variables or {})),
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )


def at_a_terminal(*words: object, home: Path, **variables: str) -> tuple[int, str]:
    """Runs it at a terminal; its exit code, and all that the terminal got to see."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*forking(), "scan", *map(str, words)],
        cwd=home,
        env=surroundings(home, TERM="xterm", **variables),
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        seen = b""
        try:
            with contextlib.suppress(OSError):  # the other side has been closed
                limit_s = at_most(30)
                while select.select([ours], [], [], limit_s)[0] and (piece := os.read(ours, 4096)):
                    seen += piece
            process.wait(at_most(30))
        finally:
            process.kill()  # without effect once it has ended
            os.close(ours)
    return process.returncode, seen.decode()


def processes_below(folder: Path) -> list[str]:
    """Command lines of the processes that speak of a folder."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = place.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it ended meanwhile
        if str(folder) in line:
            found.append(line)
    return found
