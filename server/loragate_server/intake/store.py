"""The content-addressed store: checked bytes under their own sha256."""

from __future__ import annotations

import errno
import os
import tempfile
import time
from pathlib import Path
from typing import BinaryIO, NoReturn

from loragate_server.errors import ErrorReason, NoDecisionError


class ContentStore:
    """Files named `<two digits>/<sha256>.safetensors`, read-only, written whole or not at all.

    Thread-safe: names are digests, so two writers of one name write the same bytes.

    A file's modification time says when it was used last. One in the future says until when it
    must stay, so that it holds across a restart too.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes
        folder.mkdir(parents=True, exist_ok=True)
        for left_over in folder.glob("incoming-*"):
            left_over.unlink(missing_ok=True)

    def path_of(self, sha256: str) -> Path:
        """Where the bytes with this digest are or would be."""
        return self._folder / sha256[:2] / f"{sha256}.safetensors"

    def find(self, sha256: str) -> Path | None:
        """The stored file with this digest, if any; marks it as used now."""
        path = self.path_of(sha256)
        try:
            if path.stat().st_mtime <= time.time():
                os.utime(path)
        except FileNotFoundError:
            return None
        return path

    def keep(self, sha256: str, seconds: float) -> Path | None:
        """As `find`; the file is not evicted within the next `seconds`."""
        path = self.path_of(sha256)
        until_unix_s = time.time() + seconds
        try:
            if path.stat().st_mtime < until_unix_s:
                os.utime(path, (until_unix_s, until_unix_s))
        except FileNotFoundError:
            return None
        return path

    def incoming(self) -> BinaryIO:
        """A new temporary file in the store; `adopt` or `discard` it."""
        try:
            return tempfile.NamedTemporaryFile(  # type: ignore[return-value]
                dir=self._folder, prefix="incoming-", delete=False
            )
        except OSError as error:
            raise_disk(error)

    def adopt(self, file: BinaryIO, sha256: str) -> Path:
        """Gives a complete temporary file its name; returns where it is now.

        Raises:
            NoDecisionError: DISK_FULL.
        """
        path = self.path_of(sha256)
        try:
            file.flush()
            os.fchmod(file.fileno(), 0o444)
            os.fsync(file.fileno())
            file.close()
            path.parent.mkdir(exist_ok=True)
            Path(file.name).replace(path)
        except OSError as error:
            self.discard(file)
            raise_disk(error)
        self._evict(keep=path)
        return path

    def discard(self, file: BinaryIO) -> None:
        """Throws a temporary file away."""
        file.close()
        Path(file.name).unlink(missing_ok=True)

    def _evict(self, keep: Path) -> None:
        """Deletes the files used longest ago; an open file stays readable until it is closed.

        Kept files stay, even where the store is larger than it should be then.
        """
        now_unix_s = time.time()
        files = [(path.stat(), path) for path in self._folder.glob("??/*.safetensors")]
        total = sum(status.st_size for status, _ in files)
        for status, path in sorted(files, key=lambda item: item[0].st_mtime_ns):
            if total <= self._limit_bytes or status.st_mtime > now_unix_s:
                return
            if path != keep:
                path.unlink(missing_ok=True)
                total -= status.st_size


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
