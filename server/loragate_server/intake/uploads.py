"""Stored files from outside: what lies there, since when nobody asked, and taking one away.

`ContentStore` copes with files that go: they have to be sent again. A server may run meanwhile.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from loragate_server.adapter.reference import is_sha256


@dataclass(frozen=True)
class Upload:
    """A stored file.

    Attributes:
        used_at: when somebody asked about it last, to a day; in the future, until when it was
            promised to stay.
    """

    sha256: str
    path: Path
    size_bytes: int
    used_at: datetime


def uploads(store: Path) -> Iterator[Upload]:
    """Everything that lies in a store, by digest."""
    for path in sorted(store.glob("??/*.safetensors")):
        with contextlib.suppress(FileNotFoundError):  # evicted by the server
            status = path.lstat()
            used_at = datetime.fromtimestamp(status.st_mtime, UTC)
            if is_sha256(path.stem):
                yield Upload(path.stem, path, status.st_size, used_at)


def remove(upload: Upload) -> None:
    """Deletes a stored file, if it is still there.

    Raises:
        OSError: it cannot be deleted.
    """
    upload.path.unlink(missing_ok=True)
