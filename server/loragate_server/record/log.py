"""`DecisionLog`: the append-only file without which no decision is answered."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loragate_server.files import lock, sync_folder
from loragate_server.record.chain import Link, digest, last_line_start, parse_line
from loragate_server.record.codec import to_json
from loragate_server.record.failures import log_failure
from loragate_server.record.rotation import FIRST_NOTE, end_of_rotated, full_name

MINIMUM_FREE_BYTES = 64 << 10
LOCK_TIMEOUT_S = 30.0

Wrote = Callable[[Link, bytes], None]
"""Is told a line, given without its line feed. Must not raise, and must not take long."""

_LOGGER = logging.getLogger(__name__)


class DecisionLog:
    """Appends lines to one file and syncs each to the disk before it returns. Thread-safe.

    The format is described in `chain`, its files in `rotation`. One process writes a log; a second
    one is refused. When the file was moved or emptied from outside (logrotate), the next line goes
    to a new file and continues the chain. A last line that a crash left torn is moved to
    `<log>.torn-<n>`, and a note says so.
    """

    def __init__(
        self,
        path: Path,
        *,
        begin: Link | None = None,
        wrote: Wrote = lambda _, __: None,
        file_bytes: int = 0,
    ) -> None:
        """Opens or creates the file and finds the end of its chain.

        Args:
            path: of the file that is written.
            begin: line that an empty file continues; without one it goes on from the newest full
                file, or begins a chain.
            wrote: told each line that is on the disk.
            file_bytes: size from which on it is full (`rotation`); 0 for one file without end.

        Raises:
            NoDecisionError: DECISION_LOG_UNAVAILABLE or DISK_FULL.
        """
        self._path = path
        self._wrote = wrote
        self._file_bytes = file_bytes
        self._lock = threading.Lock()
        self._fd = -1
        self._size = 0
        self._last = begin or Link()
        self._owed_note: dict[str, Any] | None = None
        self._torn = False
        self._closed = False
        with self._guarded():
            self._follow_file()

    def append_decision(self, verdict: Mapping[str, Any], *, binding: bool) -> Link:
        """Writes a decision; when this returns, it is on the disk.

        Args:
            verdict: JSON values, as the codec makes them.
            binding: whether the caller has to obey it.

        Raises:
            NoDecisionError: DECISION_LOG_UNAVAILABLE or DISK_FULL; the log then ends as before.
        """
        return self._append({"kind": "decision", "binding": binding, "verdict": dict(verdict)})

    def append_review(self, review: Mapping[str, Any]) -> Link:
        """Writes what a person said about a decision. Raises as `append_decision`."""
        return self._append({"kind": "review", "review": dict(review)})

    def append_note(self, note: Mapping[str, Any]) -> Link:
        """Writes what happened to the log or to a decision in it. Raises as `append_decision`."""
        return self._append({"kind": "note", "note": dict(note)})

    def check(self) -> None:
        """Finds out, without writing a line, whether the next line could be written.

        Raises:
            NoDecisionError: DECISION_LOG_UNAVAILABLE or DISK_FULL.
        """
        with self._guarded():
            self._follow_file()
            room = os.fstatvfs(self._fd)
            if room.f_bavail * room.f_frsize < MINIMUM_FREE_BYTES:
                raise log_failure(OSError(errno.ENOSPC, "No space left on device"), self._path)

    @property
    def last(self) -> Link:
        """The end of the chain; `Link()` before the first line."""
        return self._last

    def close(self) -> None:
        """Closes the file; later appends are refused."""
        with self._lock:
            self._closed = True
            self._close_file()

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """Serialises, and turns failures of the file into `NoDecisionError`."""
        if not self._lock.acquire(timeout=LOCK_TIMEOUT_S):
            raise log_failure(OSError(errno.EAGAIN, "an earlier write hangs"), self._path)
        try:
            if self._closed:
                raise log_failure(OSError(errno.EBADF, "it was closed"), self._path)
            yield
        except OSError as error:
            raise log_failure(error, self._path) from error
        finally:
            self._lock.release()

    def _append(self, body: dict[str, Any]) -> Link:
        with self._guarded():
            self._follow_file()
            if 0 < self._file_bytes <= self._size:
                self._begin_next_file()
            return self._write_line(body)

    def _begin_next_file(self) -> None:
        """The lock on the full file is held until it has its new name."""
        full = full_name(self._path)
        if full.exists():
            raise OSError(errno.EEXIST, f"{full.name} exists; move it aside")
        self._path.rename(full)
        sync_folder(self._path.parent)
        self._close_file()
        self._open()
        self._write_line({"kind": "note", "note": {"code": FIRST_NOTE, "file": full.name}})

    def _write_line(self, body: dict[str, Any]) -> Link:
        now = datetime.now(UTC).isoformat()
        seq = self._last.seq + 1
        head = {"seq": seq, "prev": self._last.sha256, "time": now}
        line = to_json({**head, **body}).encode("ascii")
        rest = memoryview(line + b"\n")
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
            os.fsync(self._fd)
        except OSError:
            self._torn = True
            try:
                self._take_back()
            except OSError:
                _LOGGER.exception("The torn end of the decision log could not be removed.")
            raise
        self._size += len(line) + 1
        self._last = Link(seq, digest(line))
        self._wrote(self._last, line)
        return self._last

    def _take_back(self) -> None:
        """Removes what a failed write left. Nobody was answered on the strength of it."""
        os.ftruncate(self._fd, self._size)
        os.fsync(self._fd)
        self._torn = False

    def _set_torn_aside(self) -> None:
        """Before anything reads the end of the file: the line may be whole by now."""
        size = os.fstat(self._fd).st_size
        if size > self._size:
            line = _read_all(self._fd, self._size, size)
            self._take_back()  # first, or each try on a broken disk would leave a file
            self._owed_note = _set_aside(self._path, line)
        self._torn = False

    def _follow_file(self) -> None:
        """Makes sure that the descriptor is the file at the path, and that nobody else wrote it."""
        if self._fd < 0:
            self._open()
        if self._torn:
            self._set_torn_aside()
        if self._owed_note is not None:
            self._write_line({"kind": "note", "note": self._owed_note})
            self._owed_note = None
        ours = os.fstat(self._fd)
        try:
            there = self._path.lstat()
        except FileNotFoundError:
            there = None
        if there is None or (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino):
            self._close_file()
            self._open()
        elif ours.st_size == 0 and self._size > 0:
            self._size = 0  # Emptied by "copytruncate"; the chain goes on.
        elif ours.st_size != self._size:
            raise OSError(
                errno.EIO,
                f"something else wrote to it ({ours.st_size} bytes instead of {self._size}); "
                "move it aside, and a new file continues the chain",
            )

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        fd = os.open(self._path, flags, 0o600)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "it is not a regular file")
            try:
                lock(fd)
            except BlockingIOError as error:
                raise OSError(errno.EAGAIN, "another process writes to it") from error
            sync_folder(self._path.parent)
            self._read_end(fd, status.st_size)
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd

    def _read_end(self, fd: int, size: int) -> None:
        """Finds the end of the chain in a file; sets a torn last line aside."""
        torn = False
        while size > 0:
            start = last_line_start(fd, size)
            line = _read_all(fd, start, size)
            if line.endswith(b"\n"):
                with contextlib.suppress(ValueError):
                    entry = parse_line(line[:-1])
                    self._last = Link(entry["seq"], digest(line[:-1]))
                    break
            if torn:
                raise OSError(errno.EIO, "more than its last line is not a decision; move it aside")
            torn = True
            self._owed_note = _set_aside(self._path, line)
            os.ftruncate(fd, start)
            os.fsync(fd)
            size = start
        if size == 0 and self._last.seq == 0:
            self._last = end_of_rotated(self._path)
        self._size = size

    def _close_file(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _read_all(fd: int, start: int, end: int) -> bytes:
    data = bytearray()
    while start + len(data) < end:
        chunk = os.pread(fd, end - start - len(data), start + len(data))
        if not chunk:
            raise OSError(errno.EIO, "it became shorter while it was read")
        data += chunk
    return bytes(data)


def _set_aside(path: Path, fragment: bytes) -> dict[str, Any]:
    """Keeps a torn line in a file of its own, synced before the log loses it."""
    number = 1
    while True:
        target = path.with_name(f"{path.name}.torn-{number}")
        try:
            with open(target, "xb", opener=_private) as file:
                file.write(fragment)
                file.flush()
                os.fsync(file.fileno())
            break
        except FileExistsError:
            number += 1
    sync_folder(path.parent)
    _LOGGER.warning("The decision log ended in a torn line; it is kept in %s.", target)
    return {
        "code": "torn_line_set_aside",
        "bytes": len(fragment),
        "sha256": digest(fragment),
        "file": target.name,
    }


def _private(name: str, flags: int) -> int:
    return os.open(name, flags, 0o600)
