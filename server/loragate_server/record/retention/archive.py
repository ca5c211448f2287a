"""Writes what will be pruned to an archive, and reads it again before anything goes."""

from __future__ import annotations

import gzip
import hashlib
import os
import secrets
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loragate_server.record.codec import to_json


class ArchiveError(Exception):
    """Something could not be archived, so nothing was pruned; the text says why."""


class Archive:
    """A folder, or a URL of fsspec (`s3://bucket/loragate`), that files are only ever added to.

    Args:
        url: "" for no archive: what is pruned is gone then.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/") if url.strip("/") else url

    def add_rows(self, kind: str, rows: Iterable[Mapping[str, Any]]) -> str:
        """Writes JSON lines, packed by gzip; returns where they lie, "" without an archive.

        Raises:
            ArchiveError: they do not lie there as they were written.
        """
        if not self.url:
            return ""
        text = "".join(to_json(dict(row)) + "\n" for row in rows)
        moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        name = f"{kind}-{moment}-{secrets.token_hex(4)}.jsonl.gz"
        return self._add(name, gzip.compress(text.encode("ascii"), mtime=0))

    def add_file(self, file: Path) -> str:
        """Writes a file as it is, under its own name and the digest of its bytes.

        Raises:
            ArchiveError: as `add_rows`.
            OSError: the file cannot be read.
        """
        if not self.url:
            return ""
        data = file.read_bytes()
        return self._add(f"{file.name}-{hashlib.sha256(data).hexdigest()[:16]}", data)

    def _add(self, name: str, data: bytes) -> str:
        import fsspec.implementations.local  # here, because most servers never archive anything

        target = f"{self.url}/{name}"
        try:
            files, path = fsspec.core.url_to_fs(target)
            files.makedirs(files._parent(path), exist_ok=True)
            with files.open(path, "wb") as written:
                written.write(data)
            if isinstance(files, fsspec.implementations.local.LocalFileSystem):
                _sync(Path(path))
            files.invalidate_cache()
            with files.open(path, "rb") as read:
                found = read.read()
        except Exception as error:  # any backend, each with exceptions of its own
            raise ArchiveError(f"{target} cannot be written: {error}") from error
        if hashlib.sha256(found).digest() != hashlib.sha256(data).digest():
            raise ArchiveError(f"{target} does not hold what was written to it")
        return target


def _sync(file: Path) -> None:
    """Makes a file and its name durable: what it holds is deleted elsewhere next."""
    for path in (file, file.parent):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
