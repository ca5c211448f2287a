"""Small versions of reference pictures."""

from __future__ import annotations

import functools
import io
from pathlib import Path

from loragate_server.errors import ErrorReason, NoDecisionError

SIDE = 192
"""Pixels; twice what the pages show, for fine screens."""

_MOST_KEPT = 256


@functools.lru_cache(maxsize=_MOST_KEPT)
def thumbnail(file: Path, sha256: str) -> bytes:
    """A picture, decoded and written anew as PNG, so that nothing else can hide in it. Blocks.

    Args:
        file: of an open library.
        sha256: of the file when the library was opened.

    Raises:
        NoDecisionError: CONCEPT_PICTURES_INVALID; it is no picture, or no longer the same.
    """
    from loragate_server.concepts.pictures import read_file

    picture, found = read_file(file)
    if found != sha256:
        raise NoDecisionError(
            ErrorReason.CONCEPT_PICTURES_INVALID,
            f"Picture {file.name} has changed since the library was opened.",
            remedy="Restart the server, so that it opens the library as it is now.",
            metadata={"picture": file.name},
        )
    picture.thumbnail((SIDE, SIDE))
    written = io.BytesIO()
    picture.save(written, "PNG", optimize=True)
    return written.getvalue()
