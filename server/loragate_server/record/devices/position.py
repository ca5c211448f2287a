"""How far a device has taken the log: a small file per device, in the state folder.

It is written behind the device, a second late at most, so what was taken just before a crash is
given again. Pruning reads it too: a file of the log stays until every device has its lines.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from loragate_server.config.devices import AuditDevice
from loragate_server.files import whole_file
from loragate_server.record.chain import Link


class PositionError(Exception):
    """A position cannot be read; the text says what to do."""


def position_file(folder: Path, name: str) -> Path:
    """Where the position of a device lies."""
    return folder / f"{name}.json"


def read_position(folder: Path, name: str) -> Link | None:
    """The last line that a device has taken; None where it has not been begun with.

    Raises:
        PositionError: the file is none of a position.
    """
    file = position_file(folder, name)
    try:
        found = json.loads(file.read_text(encoding="ascii"))
        seq, sha256 = found["seq"], found["sha256"]
        if not isinstance(seq, int) or not isinstance(sha256, str):
            raise ValueError("seq or sha256 is missing")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PositionError(
            f"{file} does not say how far audit device {name} has come ({error}); mend it, or "
            "move it away to begin anew"
        ) from error
    return Link(seq, sha256)


def save_position(folder: Path, name: str, link: Link) -> None:
    """Writes a position; it is on the disk when this returns.

    Raises:
        OSError: it cannot be written; the one of before stands.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with whole_file(position_file(folder, name)) as partial:
        partial.write_text(json.dumps({"seq": link.seq, "sha256": link.sha256}), encoding="ascii")
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def least_taken(folder: Path, devices: Iterable[AuditDevice]) -> int | None:
    """The number of the last line that all devices have; None where no line is waited for.

    A device that was never begun with gets nothing of the past, unless it asks for `history`.

    Raises:
        PositionError: one cannot be read.
    """
    taken = []
    for one in devices:
        link = read_position(folder, one.name)
        if link is not None:
            taken.append(link.seq)
        elif one.history:
            taken.append(0)
    return min(taken, default=None)
