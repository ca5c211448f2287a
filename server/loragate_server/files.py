"""Files and folders that are written whole or not at all, whoever else writes them as well."""

from __future__ import annotations

import contextlib
import glob
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LEFT_OVER_S = 3600.0
"""A partial file of this age was left by a writer that crashed."""


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Gives a name to write to; what was written takes the place of `path` when the block ends.

    An exception leaves `path` as it was.

    Raises:
        OSError: it cannot be written.
    """
    partial = _partial(path)
    try:
        yield partial
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """As `whole_file`, for a folder that is made once: of two writers, the first one's stays.

    Raises:
        OSError: it cannot be written.
    """
    partial = _partial(path)
    try:
        yield partial
        try:
            partial.rename(path)
        except OSError:
            if not path.is_dir():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _partial(path: Path) -> Path:
    """A name of this writer alone: containers that share a folder have the same process numbers.

    Deletes what writers left behind that crashed.
    """
    for left_over in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        with contextlib.suppress(OSError):
            if time.time() - left_over.lstat().st_mtime > _LEFT_OVER_S:
                if left_over.is_dir():
                    shutil.rmtree(left_over)
                else:
                    left_over.unlink()
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")
