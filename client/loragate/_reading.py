"""Reads local files: regular ones only, each once, and within a time of its own.

A file decides itself how fast it can be read: it may lie on a network drive, or be a pipe under the
name of an adapter. Its time therefore never counts as waiting for the service, and running out of
it is an error that lets nothing in.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections.abc import Callable

READ_LIMIT_S = 60.0
"""Longest time that one file may take to be read."""

# Without O_NONBLOCK, opening a pipe waits for whoever writes into it. Windows lacks the flags.
_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)
_PIECE_BYTES = 1 << 30
_HEAD_BYTES = 64
_READERS = threading.BoundedSemaphore(32)
"""Reads that hang in the kernel cannot be ended; so many may, then further ones are refused."""


class NotAFileError(ValueError):
    """What was to be read is a folder, device, pipe or socket."""


def read_once(path: str | os.PathLike[str], *, limit_s: float | None = None) -> bytes:
    """The content of a local file, read once, so that what is hashed is what can be loaded.

    Args:
        path: the file.
        limit_s: seconds that it may take; None for `READ_LIMIT_S`.

    Raises:
        OSError: it cannot be read; TimeoutError where it takes too long.
        NotAFileError: it is not a regular file.
    """
    return _within(path, None, limit_s)


def read_head(
    path: str | os.PathLike[str], *, size_bytes: int = _HEAD_BYTES, limit_s: float | None = None
) -> bytes:
    """The first bytes of a local file, by which its kind can be told; raises as `read_once`."""
    return _within(path, size_bytes, limit_s)


def _within(path: str | os.PathLike[str], size: int | None, limit_s: float | None) -> bytes:
    """Reads in a thread of its own, for which nobody waits longer than the limit."""
    limit_s = READ_LIMIT_S if limit_s is None else limit_s
    deadline_s = time.monotonic() + limit_s
    late = TimeoutError(errno.ETIMEDOUT, f"It was not read within {limit_s:g} s", os.fspath(path))
    if not _READERS.acquire(timeout=limit_s):
        raise late
    outcome = _Outcome(lambda: _read(path, size, deadline_s))
    thread = threading.Thread(target=outcome.make, name="loragate-read", daemon=True)
    try:
        thread.start()
    except BaseException:
        _READERS.release()
        raise
    thread.join(max(deadline_s - time.monotonic(), 0.0))
    if outcome.error is not None:
        raise outcome.error
    if outcome.data is None:
        raise late
    return outcome.data


class _Outcome:
    """What came of one read; both are None until it has ended."""

    def __init__(self, read: Callable[[], bytes]) -> None:
        self._read = read
        self.data: bytes | None = None
        self.error: Exception | None = None

    def make(self) -> None:
        try:
            self.data = self._read()
        except Exception as error:
            self.error = error
        finally:
            _READERS.release()


def _read(path: str | os.PathLike[str], size: int | None, deadline_s: float) -> bytes:
    descriptor = os.open(path, _FLAGS)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise NotAFileError(f"{os.fspath(path)} is not a regular file.")
        # One byte more than it has shows its end; a file that grows is read on.
        wanted = min(status.st_size + 1, _PIECE_BYTES) if size is None else size
        pieces: list[bytes] = []
        while piece := os.read(descriptor, wanted):
            pieces.append(piece)
            if size is not None:
                break
            if time.monotonic() > deadline_s:
                raise TimeoutError(errno.ETIMEDOUT, "It is read too slowly", os.fspath(path))
        return b"".join(pieces)
    finally:
        os.close(descriptor)
