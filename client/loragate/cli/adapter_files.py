"""Finds the files of a folder that an image server could load as an adapter."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from loragate._beside import CONFIG_NAME, require_plain
from loragate._reading import read_head

AUDITED = frozenset({".safetensors", ".sft"})
_TEXTS = (".md", ".txt", ".rst", ".json", ".yaml", ".yml", ".toml", ".csv", ".sha256", ".sig")
_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif")
HARMLESS = frozenset((*_TEXTS, *_PICTURES, ".gitattributes", ".gitignore", ".gitkeep"))
"""Kinds of files that no image server loads weights from."""


class RefusedFileError(ValueError):
    """A file about which the service need not be asked.

    Attributes:
        reason: stable word, for tables and reports.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class FoundFile:
    """One file.

    Attributes:
        path: where it is; of an address, its last part.
        name: what reports call it: its path below the folder, with forward slashes.
        refusal: why it is refused unasked; None for a file to audit.
        uri: an address that the service reads; empty for a file on this machine.
    """

    path: Path
    name: str
    refusal: RefusedFileError | None = None
    uri: str = ""


def find(folder: Path, *, follow_symlinks: bool) -> list[FoundFile]:
    """The files to audit or to refuse, ordered by name.

    Raises:
        NotADirectoryError: it is not a folder.
        OSError: a folder cannot be read.
    """
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder.")
    paths = walk(folder, follow_symlinks)
    found = [look_at(path, path.relative_to(folder).as_posix(), follow_symlinks) for path in paths]
    return sorted((one for one in found if one is not None), key=lambda one: one.name)


def look_at(path: Path, name: str, follow_symlinks: bool) -> FoundFile | None:
    """One file to audit or to refuse; None for one from which nothing loads weights."""
    refusal = _refusal(path, follow_symlinks)
    if refusal is None and path.suffix.lower() not in AUDITED:
        return None
    return FoundFile(path, name, refusal)


def walk(folder: Path, follow_symlinks: bool) -> Iterator[Path]:
    """Everything below a folder that is not a folder itself; a link counts as such unfollowed.

    Raises:
        OSError: a folder cannot be read.
    """
    return _walk(folder, follow_symlinks, seen=set())


def _walk(folder: Path, follow_symlinks: bool, seen: set[tuple[int, int]]) -> Iterator[Path]:
    status = folder.stat()
    if (status.st_dev, status.st_ino) in seen:
        return  # a link that leads back up
    seen.add((status.st_dev, status.st_ino))
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=follow_symlinks):
                yield from _walk(Path(entry.path), follow_symlinks, seen)
            else:
                yield Path(entry.path)


def _refusal(path: Path, follow_symlinks: bool) -> RefusedFileError | None:
    """Why a file is refused without asking."""
    if path.is_symlink() and not follow_symlinks:
        return RefusedFileError(
            "SYMBOLIC_LINK",
            "It is a symbolic link; --follow-symlinks audits what it leads to.",
        )
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return RefusedFileError("UNREADABLE", f"It cannot be read: {error.strerror}.")
    if not stat.S_ISREG(mode):
        return RefusedFileError("NOT_A_FILE", "It is a device, pipe or socket.")
    kind = path.suffix.lower() or path.name.lower()
    if kind in AUDITED:
        return _changed_beside(path)
    if kind not in HARMLESS:
        return RefusedFileError(
            "NOT_SAFETENSORS",
            f"Weights have to be safetensors files, not {kind!r}; convert or remove it.",
        )
    return _disguised(path)


def _changed_beside(path: Path) -> RefusedFileError | None:
    """Refuses weights that a configuration beside them makes into others."""
    try:
        require_plain(path)
    except OSError as error:
        return RefusedFileError("UNREADABLE", f"{CONFIG_NAME} cannot be read: {error.strerror}.")
    except ValueError as error:
        return RefusedFileError("CONFIG_BESIDE", str(error))
    return None


def _disguised(path: Path) -> RefusedFileError | None:
    """Refuses a pickle or archive that calls itself a text or a picture."""
    try:
        start = read_head(path)
    except OSError as error:
        return RefusedFileError("UNREADABLE", f"It cannot be read: {error.strerror}.")
    except ValueError as error:  # it was one when it was looked at a moment ago
        return RefusedFileError("NOT_A_FILE", str(error))
    if start.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
        return RefusedFileError("PICKLE_REFUSED", "It is a pickle or archive under another name.")
    return None
