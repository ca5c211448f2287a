"""The name that a trainer wrote into a file of weights, by which some servers know the file too."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from safetensors import SafetensorError, safe_open

_NAME = "ss_output_name"
_SUFFIX = ".safetensors"
_MOST_FILES = 65_536


def given_name(path: str) -> str:
    """The name in the header of a safetensors file; empty where there is none.

    A file that the library cannot open, no server can load by that name either.
    """
    if not path.lower().endswith(_SUFFIX):
        return ""
    try:
        state = Path(path).stat()
    except OSError:
        return ""
    return _read(path, (state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns))


@lru_cache(maxsize=_MOST_FILES)
def _read(path: str, _: tuple[int, ...]) -> str:
    """Read once for each state of a file: a folder may hold thousands."""
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
    except (OSError, SafetensorError):
        return ""
    return str(metadata.get(_NAME, ""))
