"""The content-addressed store: checked bytes under their own sha256."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NoReturn

from loragate_server.adapter.reference import StoredFile, is_sha256
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.recent import REMEMBERED, RecentFiles

_log = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 20
_SUFFIX = ".safetensors"
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
_NEVER_OURS = (errno.ELOOP, errno.ENXIO, errno.ENODEV, errno.EACCES, errno.EISDIR)
"""What opening a stored file fails with when something else lies under its name."""
_SETTLED_NS = 100_000_000
"""File systems tell two changes within some milliseconds apart by nothing: a file that was changed
so shortly before it was hashed may have been changed since without a trace."""
_MARK_EVERY_S = 86_400.0
_COUNT_AGAIN_S = 60.0
"""Another process may share the folder, so that what lies there is not known for ever; nor is it
counted for more than a hundredth of the time."""
_MANY = 100
"""Files."""
_TRIAL_BYTES = 64 << 10
"""A file system may say that it has room and give none: quotas, no inodes left."""


class ContentStore:
    """Files named `<two digits>/<sha256>.safetensors`, read-only, written whole or not at all.

    Thread-safe. What is handed out was hashed here, or has not changed since it was: a file that
    somebody changed is deleted, and its bytes have to be sent again.

    A file's modification time says when it was used last, to a day: setting it changes what proves
    that the bytes are the same. One in the future says until when the file must stay, so that it
    holds across a restart too.

    Args:
        folder: made where it does not exist.
        limit_bytes: above it, the files used longest ago are deleted; where there are many, a
            twentieth more than that, because it takes a look at every one of them. What another
            process puts there is seen after a minute.
        on_corrupt: told of every stored file whose bytes are not those of its name.
        remembered: files that are known, without a look at them, to be unchanged, and when they
            were used to the second. The store may hold many times as many small ones.
    """

    def __init__(
        self,
        folder: Path,
        limit_bytes: int,
        on_corrupt: Callable[[], None] = lambda: None,
        *,
        remembered: int = REMEMBERED,
    ) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._on_corrupt = on_corrupt
        self._proven = RecentFiles[bytes](remembered)
        self._used_unix_s = RecentFiles[float](remembered)
        self._changing = threading.Lock()
        """Held while names come and go."""
        self._held_bytes = 0
        """At most so many lie here, but for what another process has put here since."""
        self._full_bytes = limit_bytes
        """What lies here beyond the limit for a reason is no reason to count again."""
        self._count_again_monotonic_s = 0.0
        folder.mkdir(parents=True, exist_ok=True)
        for left_over in folder.glob("incoming-*"):
            _delete(left_over)

    def path_of(self, sha256: str) -> Path:
        """Where the bytes with this digest are or would be."""
        return self._folder / sha256[:2] / f"{sha256}{_SUFFIX}"

    def find(self, sha256: str) -> Path | None:
        """The stored file with this digest, if any; marks it as used now.

        Reads it, unless it is proven that nobody has changed it since it was read last.
        """
        return self.keep(sha256, 0.0)

    def keep(self, sha256: str, seconds: float) -> Path | None:
        """As `find`; the file is not evicted within the next `seconds`."""
        if not self._holds(sha256):
            return None
        path = self.path_of(sha256)
        try:
            with self._changing:
                now_unix_s = self._used_unix_s[sha256] = time.time()
                least_unix_s = now_unix_s + (seconds or -_MARK_EVERY_S)
                if path.stat().st_mtime < least_unix_s:
                    # Half as long again, so that a file in use is not marked every time.
                    until_unix_s = now_unix_s + 1.5 * seconds
                    os.utime(path, (until_unix_s, until_unix_s))
        except FileNotFoundError:
            return None  # evicted since
        return path

    def incoming(self) -> BinaryIO:
        """A new temporary file in the store; `adopt` or `discard` it."""
        try:
            return tempfile.NamedTemporaryFile(  # type: ignore[return-value]
                dir=self._folder, prefix="incoming-", delete=False
            )
        except OSError as error:
            raise_disk(error)

    def check(self) -> None:
        """Writes a file and throws it away, to see whether the next one could be taken in.

        Raises:
            NoDecisionError: DISK_FULL.
            OSError: it cannot be written for another reason.
        """
        file = self.incoming()
        try:
            file.write(bytes(_TRIAL_BYTES))
            file.flush()
        except OSError as error:
            raise_disk(error)
        finally:
            with contextlib.suppress(OSError):  # the flush of what found no room
                file.close()
            Path(file.name).unlink(missing_ok=True)

    def adopt(self, file: BinaryIO, sha256: str) -> Path:
        """Gives a complete temporary file its name, in place of what lies there.

        Raises:
            NoDecisionError: DISK_FULL.
        """
        path = self.path_of(sha256)
        try:
            file.flush()
            os.fchmod(file.fileno(), 0o444)
            os.fsync(file.fileno())
            size = os.fstat(file.fileno()).st_size
            file.close()
            with self._changing:
                path.parent.mkdir(exist_ok=True)
                if path.is_dir():
                    _delete(path)
                Path(file.name).replace(path)
                self._used_unix_s[sha256] = time.time()
                self._held_bytes += size
                if self._is_full():
                    self._evict(keep=path)
        except OSError as error:
            self.discard(file)
            raise_disk(error)
        return path

    def discard(self, file: BinaryIO) -> None:
        """Throws a temporary file away."""
        file.close()
        Path(file.name).unlink(missing_ok=True)

    def scrub(self, pause: Callable[[], None] = lambda: None) -> None:
        """Reads all that is stored, and deletes what is not what it is called.

        Args:
            pause: called after each MiB; what it raises ends the work.
        """
        for folder in sorted(one.path for one in self._folders()):
            for path in sorted(Path(folder).glob("*.safetensors")):
                if is_sha256(path.stem) and path == self.path_of(path.stem):
                    self._holds(path.stem, anew=True, pause=pause)

    def _holds(
        self, sha256: str, *, anew: bool = False, pause: Callable[[], None] = lambda: None
    ) -> bool:
        """Whether the bytes of this digest lie under its name; deletes others that do."""
        path = self.path_of(sha256)
        seen = _inode(path)
        try:
            descriptor = os.open(path, _READ)
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno not in _NEVER_OURS:
                raise
            self._drop(sha256, seen)
            return False
        try:
            status = os.fstat(descriptor)
            signature = _signature(status)
            if not anew and self._proven.get(sha256) == signature:
                return True
            right = stat.S_ISREG(status.st_mode) and _digest(descriptor, pause) == sha256
            settled = time.time_ns() - status.st_ctime_ns > _SETTLED_NS
            if right and settled and _signature(os.fstat(descriptor)) == signature:
                self._proven[sha256] = signature
        finally:
            os.close(descriptor)
        if not right:
            self._drop(sha256, (status.st_dev, status.st_ino))
        return right

    def _drop(self, sha256: str, seen: tuple[int, int] | None) -> None:
        """Deletes a stored file that is not what it is called, unless it has been replaced."""
        path = self.path_of(sha256)
        with self._changing:
            if seen is None or _inode(path) != seen:
                return
            _delete(path)
            self._forget(sha256)
        _log.error("the stored file %s was changed by somebody else and is deleted", path)
        self._on_corrupt()

    def _is_full(self) -> bool:
        """Whether there may be too much; hold the lock."""
        late = time.monotonic() >= self._count_again_monotonic_s
        return late or self._held_bytes > self._full_bytes

    def _evict(self, keep: Path) -> None:
        """Deletes the files used longest ago; an open file stays readable until it is closed.

        Kept files stay, even where the store is larger than it should be then.
        """
        now_unix_s, began_s = time.time(), time.monotonic()
        # Counted one by one: a list of all would take more memory with every file that is stored.
        total = sum(size for _, size, _, _ in self._files())
        if total > self._limit_bytes:
            files = sorted(self._files())
            total = sum(size for _, size, _, _ in files)
            room = self._limit_bytes // 20 if len(files) > _MANY else 0
            for _, size, marked_unix_s, name in files:
                if total <= self._limit_bytes - room:
                    break
                path = Path(name)
                if path != keep and marked_unix_s <= now_unix_s:
                    _delete(path)
                    self._forget(path.stem)
                    total -= size
        self._held_bytes, self._full_bytes = total, self._limit_bytes
        if total > self._limit_bytes:
            self._full_bytes = total + self._limit_bytes // 20
        ended_s = time.monotonic()
        self._count_again_monotonic_s = ended_s + max(_COUNT_AGAIN_S, 100 * (ended_s - began_s))

    def _files(self) -> Iterator[tuple[float, int, float, str]]:
        """When each file was used last, its size, its mark, and where it is."""
        for folder in self._folders():
            # Gone, or somebody else's: what cannot be looked into is not counted.
            skipped = contextlib.suppress(FileNotFoundError, PermissionError)
            with skipped, os.scandir(folder) as found:
                for one in found:
                    if one.name.endswith(_SUFFIX):
                        # Another process may delete it meanwhile.
                        with contextlib.suppress(FileNotFoundError):
                            status = one.stat(follow_symlinks=False)
                            own = self._used_unix_s.get(one.name.removesuffix(_SUFFIX)) or 0.0
                            used_unix_s = max(status.st_mtime, own)
                            yield used_unix_s, status.st_size, status.st_mtime, one.path

    def _folders(self) -> Iterator[os.DirEntry[str]]:
        """Those that files lie in, by their first two digits."""
        with os.scandir(self._folder) as found:
            for one in found:
                if len(one.name) == 2 and one.is_dir(follow_symlinks=False):
                    yield one

    def _forget(self, sha256: str) -> None:
        self._proven.forget(sha256)
        self._used_unix_s.forget(sha256)


def read_stored(stored: StoredFile) -> bytes:
    """The bytes of a stored file: those of its digest, whatever happens to the file meanwhile.

    A file that is not named after its digest is none of the store's, and is taken as it is.

    Raises:
        NoDecisionError: ADAPTER_NOT_STORED where the store does not hold them any more.
        OSError: a file that is none of the store's cannot be read.
    """
    ours = stored.path.stem == stored.sha256
    try:
        data = _read_regular(stored.path, stored.size_bytes + 1)
    except OSError as error:
        if not ours:
            raise
        raise not_stored(stored.sha256) from error
    if ours and hashlib.sha256(data).hexdigest() != stored.sha256:
        raise not_stored(stored.sha256)
    return data


def _read_regular(path: Path, limit_bytes: int) -> bytes:
    descriptor = os.open(path, _READ)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "is no regular file", str(path))
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(limit_bytes)
    finally:
        os.close(descriptor)


def not_stored(sha256: str) -> NoDecisionError:
    """ADAPTER_NOT_STORED: never there, evicted, or changed by somebody else."""
    return NoDecisionError(
        ErrorReason.ADAPTER_NOT_STORED,
        f"The server holds no bytes with sha256 {sha256[:64]}.",
        remedy="Ask again and send the bytes.",
        metadata={"sha256": sha256[:64]},
    )


def raise_disk(error: OSError) -> NoReturn:
    """Turns a full disk into DISK_FULL; raises every other error as it is."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        raise NoDecisionError(
            ErrorReason.DISK_FULL,
            "There is no room left for the adapter in the store.",
            remedy="Free disk space in the state directory, then ask again.",
            retry_after_s=30.0,
        ) from error
    raise error


def _signature(status: os.stat_result) -> bytes:
    """What changes with every change of a file: nobody can set its change time."""
    times = f"{status.st_mtime_ns} {status.st_ctime_ns}"
    return f"{status.st_dev} {status.st_ino} {status.st_size} {times}".encode()


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _digest(descriptor: int, pause: Callable[[], None]) -> str | None:
    """The sha256 of an open file; None where it cannot be read."""
    digest = hashlib.sha256()
    try:
        while chunk := os.read(descriptor, _CHUNK_BYTES):
            digest.update(chunk)
            pause()
    except OSError as error:
        _log.error("a stored file cannot be read: %s", error.strerror)
        return None
    return digest.hexdigest()


def _delete(path: Path) -> None:
    """Deletes whatever lies there, if anything does."""
    try:
        path.unlink(missing_ok=True)
    except IsADirectoryError:
        shutil.rmtree(path, ignore_errors=True)
