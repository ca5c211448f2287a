"""New databases of SQLite begin with the present tables, which every migration has made once."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from loragate_server.errors import NoDecisionError
from loragate_server.record import migrate
from loragate_server.record.connect import parse_url, sqlite_path


@cache
def _new_database() -> bytes:
    """What the migrations make of no database."""
    with TemporaryDirectory() as folder:
        file = Path(folder, "new.db")
        migrate.upgrade(f"sqlite:///{file}")
        return file.read_bytes()


def upgrade(database_url: str, timeout_s: float = migrate.DEFAULT_TIMEOUT_S) -> None:
    """As `migrate.upgrade`, which is called too; it finds a new file with its tables in it."""
    with suppress(NoDecisionError, OSError):  # the real one tells what is wrong
        path = sqlite_path(parse_url(database_url))
        if path is not None and path.parent.is_dir() and not path.exists():
            _write(path, _new_database())
    migrate.upgrade(database_url, timeout_s)


def _write(path: Path, content: bytes) -> None:
    """All of it or nothing: a disk may be full, and others may begin meanwhile."""
    own = path.with_name(f"{path.name}.new")
    descriptor = os.open(own, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.link(own, path)
    finally:
        own.unlink()
