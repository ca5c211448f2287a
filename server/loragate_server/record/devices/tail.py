"""`Tail`: reads the decision log line by line, through all of its files, for one device.

The log itself is what waits for a device that is away. Only lines are read that are known to be on
the disk, for a failed write is taken back. A file that is being read stays open, so that it is read
to its end whatever it is renamed to; the next one is found by the chain, also among files that
somebody else renamed and left beside the log.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from loragate_server.record.chain import Link, last_line_start
from loragate_server.record.devices.line import DeviceError, LogLine, read_line

BATCH_LINES = 256
BATCH_BYTES = 1 << 20
"""After which no further line joins a batch; receivers of OTLP take 4 MiB by default."""


@dataclass(frozen=True)
class _LogFile:
    """A file of the log, with number and digest of the line before its first one."""

    before: Link
    path: Path


class Tail:
    """What comes in a log after one of its lines. Used by one thread.

    Attributes:
        last: the line before the next one that is read.
        missed: how many lines of the log were gone when they should have been read.
    """

    def __init__(self, log: Path, after: Link) -> None:
        """Finds the place.

        Args:
            log: the file that is written.
            after: the last line that is known already; `Link()` for none. Where the log does not
                hold it, `last` is before the first line that can be known to come later, or before
                the first one of the file that is written.

        Raises:
            OSError: the log cannot be read.
        """
        self._log = log
        self._file: BinaryIO | None = None
        self.last = after
        self.missed = 0
        self._find(more=False)

    def read(self, until: Link) -> list[LogLine]:
        """The next lines, some at a time; none where the line `until` was read.

        Raises:
            DeviceError: the next line is not there, or none of a decision log.
            OSError: the log cannot be read.
        """
        if self.last.seq >= until.seq:
            return []
        found = self._here(until)
        if not found:
            self._find(more=True)
            found = self._here(until)
        if not found:
            raise DeviceError(
                f"line {self.last.seq + 1} of the decision log cannot be read; put the file that "
                f"holds it back beside {self._log.name}. Where it is lost, move the device's file "
                "in STATE_DIR/devices away and start the server again"
            )
        return found

    def close(self) -> None:
        """Closes the file that is read."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _here(self, until: Link) -> list[LogLine]:
        """What the open file holds of the next lines."""
        if self._file is not None:
            _forget_read_ahead(self._file)
        found: list[LogLine] = []
        size = 0
        while self.last.seq < until.seq and len(found) < BATCH_LINES and size < BATCH_BYTES:
            line = self._next()
            if line is None:
                break
            found.append(line)
            size += len(line.text)
        return found

    def _next(self) -> LogLine | None:
        """None at the end, and where something else stands than the next line of the chain."""
        if self._file is None:
            return None
        place = self._file.tell()
        text = self._file.readline()
        if text.endswith(b"\n"):
            try:
                line, before = read_line(text[:-1])
            except ValueError:
                pass
            else:
                if Link(line.link.seq - 1, before) == self.last:
                    self.last = line.link
                    return line
        self._file.seek(place)
        return None

    def _find(self, *, more: bool) -> None:
        """Opens the file that holds the next line at its place; the file of the last line, else.

        Args:
            more: the next line has been written, so that a log without it has lost it.
        """
        self.close()
        files = _files(self._log)
        if self.last == Link() and files:
            self._open(files[0].path, 0, files[0].before)
            return
        ends_in: tuple[Path, int] | None = None
        for one in reversed(files):
            if one.before == self.last:
                self._open(one.path, 0, self.last)
                return
            place = _place_after(one.path, self.last) if one.before.seq < self.last.seq else None
            if place is not None and place < one.path.stat().st_size:
                self._open(one.path, place, self.last)
                return
            if place is not None and ends_in is None:
                ends_in = one.path, place
        if ends_in is not None and not (more and self._skip(files)):
            self._open(*ends_in, self.last)
        elif ends_in is None:
            self._skip(files, begun_anew=True)

    def _skip(self, files: list[_LogFile], *, begun_anew: bool = False) -> bool:
        """Goes on behind lines that are gone, or with a log that was begun anew, if it is so."""
        if _files(self._log) != files:
            return False  # a file was renamed while they were listed
        later = [one for one in files if one.before.seq > self.last.seq]
        own = [one for one in files if one.path == self._log]
        if begun_anew and own and own[0].before == Link():
            chosen = own[0]
        elif later:
            chosen = later[0]
            self.missed += chosen.before.seq - self.last.seq
        elif begun_anew and own:
            chosen = own[0]
        else:
            return False
        self._open(chosen.path, 0, chosen.before)
        return True

    def _open(self, path: Path, place: int, last: Link) -> None:
        self._file = path.open("rb")
        self._file.seek(place)
        self.last = last


def _forget_read_ahead(file: BinaryIO) -> None:
    """Stays at its place, and reads from the file again what comes there.

    What was read ahead may be of a line whose write failed, which another one has replaced.
    """
    place = file.tell()
    file.seek(0, os.SEEK_END)
    file.seek(place)


def _files(log: Path) -> list[_LogFile]:
    """The log and what it was renamed to, in the order of their lines."""
    found = []
    for path in log.parent.glob(f"{log.name}*"):
        if path.is_file() and ".torn-" not in path.name:
            found += [_LogFile(before, path) for before in _before_first(path)]
    return sorted(found, key=lambda one: (one.before.seq, one.path == log, one.path.name))


def _before_first(path: Path) -> Iterator[Link]:
    """Nothing for a file that holds no line of a log, or that has just got another name."""
    try:
        with path.open("rb") as file:
            text = file.readline()
        if text.endswith(b"\n"):
            line, before = read_line(text[:-1])
            yield Link(line.link.seq - 1, before)
    except (FileNotFoundError, ValueError):
        return


def _place_after(path: Path, link: Link) -> int | None:
    """Where the line after `link` begins in a file; None where that one is not in it."""
    with path.open("rb") as file:
        fd = file.fileno()
        end = os.fstat(fd).st_size
        while end > 0:
            begin = last_line_start(fd, end)
            text = os.pread(fd, end - begin, begin)
            try:
                line, _ = read_line(text.removesuffix(b"\n"))
            except ValueError:
                end = begin  # torn, or being written
                continue
            if line.link.seq <= link.seq:
                return end if line.link == link else None
            end = begin
    return None
