"""Names of the files of a decision log that the server rotates itself.

The file that is written keeps its name. A full one is renamed to `<log>.<number of its first line,
twelve digits>`, so that names sort in the order of the chain. The first line of the next file
holds the digest of the last line of the former one, as every line does, and is a note that names
the file. Files that somebody else renamed (logrotate) are not among these.
"""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from loragate_server.record.chain import GENESIS, Link, digest, last_line_start, parse_line

_NUMBER = re.compile(r"\d{12}")
FIRST_NOTE = "continues"


def rotated_files(log: Path) -> tuple[Path, ...]:
    """The full files of a log, oldest first."""
    found = log.parent.glob(f"{log.name}.*") if log.parent.is_dir() else ()
    return tuple(sorted(one for one in found if _NUMBER.fullmatch(one.name[len(log.name) + 1 :])))


def files_of(log: Path) -> list[Path]:
    """All files of a log, oldest first; the one that is written comes last, and is always named."""
    return [*rotated_files(log), log]


def full_name(log: Path) -> Path:
    """The name that the file which is written gets when it is full.

    Raises:
        OSError: it cannot be read, or its first line is none of a decision log.
    """
    with log.open("rb") as file:
        first = _seq(file.readline().removesuffix(b"\n"), log)
    return log.with_name(f"{log.name}.{first:012d}")


def end_of_rotated(log: Path) -> Link:
    """The end of the newest full file, which an empty log goes on from; none: a new chain.

    A server that was killed between two files leaves it so.

    Raises:
        OSError: it cannot be read, or its last line is none of a decision log.
    """
    files = rotated_files(log)
    if not files:
        return Link(0, GENESIS)
    fd = os.open(files[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        size = os.fstat(fd).st_size
        file.seek(last_line_start(fd, size))
        line = file.read().removesuffix(b"\n")
    return Link(_seq(line, files[-1]), digest(line))


def _seq(line: bytes, file: Path) -> int:
    try:
        return int(parse_line(line)["seq"])
    except ValueError as error:
        raise OSError(errno.EIO, f"{file.name} holds a line that is no decision") from error
