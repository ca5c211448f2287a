"""`FileSink`: a second file of JSON lines, best on another volume than the log."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from loragate_server.files import lock, sync_folder
from loragate_server.record.chain import Link, digest, last_line_start, parse_line
from loragate_server.record.devices.line import DeviceError, LogLine

MINIMUM_FREE_BYTES = 64 << 10


class FileSink:
    """Appends lines to a file and syncs them before it returns.

    A line that the file ends with already is not written again, so that without sealing the file
    is a log that `log verify` accepts: after a crash the last lines are given once more. A torn
    line at the end is cut off, and comes again. A file that was moved away is begun anew.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.expanduser().absolute()
        self._fd = -1
        self._size = 0
        self._end: Link | None = None

    def take(self, lines: Sequence[LogLine]) -> None:
        """Writes them."""
        try:
            self._follow()
            new = self._not_there(lines)
            if new:
                self._append(b"".join(one.text + b"\n" for one in new))
                self._end = new[-1].link
        except OSError as error:
            raise DeviceError(_cause(self._path, error)) from error

    def probe(self) -> None:
        """Opens it, and looks for room."""
        try:
            self._follow()
            room = os.fstatvfs(self._fd)
            if room.f_bavail * room.f_frsize < MINIMUM_FREE_BYTES:
                raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise DeviceError(_cause(self._path, error)) from error

    def close(self) -> None:
        """Closes the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _not_there(self, lines: Sequence[LogLine]) -> Sequence[LogLine]:
        """Without those up to the one that the file ends with, or all where the last is in it."""
        for index, one in enumerate(lines):
            if one.link == self._end:
                return lines[index + 1 :]
        # After a crash the file may be some batches ahead of the position that was kept.
        return () if self._holds(lines[-1].link) else lines

    def _holds(self, link: Link) -> bool:
        """Whether a line stands before the end of the file; looks back no further than it could."""
        at, place = self._end, self._size
        while at is not None and at.seq > link.seq:
            place = last_line_start(self._fd, place)
            at = _line_before(self._fd, place) if place else None
        return at == link

    def _append(self, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
            os.fsync(self._fd)
        except OSError:
            self._take_back()
            raise
        self._size += len(data)

    def _take_back(self) -> None:
        """Removes what a failed write left; the lines come again."""
        try:
            os.ftruncate(self._fd, self._size)
        finally:
            self.close()  # the next attempt looks at its end again

    def _follow(self) -> None:
        """Makes sure that the descriptor is the file at the path."""
        if self._fd >= 0:
            ours = os.fstat(self._fd)
            try:
                there = self._path.lstat()
            except FileNotFoundError:
                there = None
            same = there and (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)
            if not same or ours.st_size != self._size:
                self.close()
        if self._fd < 0:
            self._open()

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        fd = os.open(self._path, flags, 0o600)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError(errno.EINVAL, "it is not a regular file")
            try:
                lock(fd)
            except BlockingIOError as error:
                raise OSError(errno.EAGAIN, "another process writes to it") from error
            self._read_end(fd)
            sync_folder(self._path.parent)
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd

    def _read_end(self, fd: int) -> None:
        """Finds the last whole line; cuts a torn one off."""
        size, self._end = os.fstat(fd).st_size, None
        if size and os.pread(fd, 1, size - 1) != b"\n":
            size = last_line_start(fd, size)
            os.ftruncate(fd, size)
            os.fsync(fd)
        if size:
            self._end = _line_before(fd, size)
        self._size = size


def _line_before(fd: int, end: int) -> Link:
    """The line of a file that ends at byte `end`."""
    start = last_line_start(fd, end)
    return _link(os.pread(fd, end - start, start).removesuffix(b"\n"))


def _link(text: bytes) -> Link:
    try:
        entry = parse_line(text)
    except ValueError as error:
        raise OSError(
            errno.EINVAL, "it ends with something that is no line of a decision log; move it aside"
        ) from error
    # A sealed line holds the digest of the line that it was made of.
    return Link(entry["seq"], str(entry.get("sha256") or digest(text)))


def _cause(path: Path, error: OSError) -> str:
    return f"{path} cannot be written: {error.strerror or type(error).__name__}"
