"""From what `loragate scan` was given, files, folders, globs and addresses, to files to audit."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from glob import glob
from pathlib import Path, PurePosixPath

from loragate.cli.adapter_files import AUDITED, FoundFile, RefusedFileError, look_at, walk

SCHEMES = ("hf", "s3")
"""Kinds of addresses that the engine is told to fetch from, each only where one was given."""

_ADDRESS = re.compile("([a-z][a-z0-9+.-]*)://", re.IGNORECASE)


@dataclass(frozen=True)
class Choice:
    """Which of the files are looked at.

    Attributes:
        include: only what matches one of these; empty for all.
        exclude: nothing that matches one of these.
        follow_symlinks: audits what links lead to, and does not refuse them.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    follow_symlinks: bool = False

    def takes(self, *names: str) -> bool:
        """Whether a file, by any of its names, is looked at."""
        if any(fnmatchcase(name, pattern) for pattern in self.exclude for name in names):
            return False
        included = (fnmatchcase(name, one) for one in self.include for name in names)
        return not self.include or any(included)


@dataclass
class Gathered:
    """What was found.

    Attributes:
        files: to audit or to refuse, ordered by name.
        passed_over: what `Choice` left out, by name.
    """

    files: list[FoundFile] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)


def gather(places: Sequence[str], choice: Choice) -> Gathered:
    """The files that the places name, each once, however many of them name it.

    Raises:
        FileNotFoundError: a place is no file, no folder, and no pattern that anything matches.
        ValueError: an address is of a kind that nothing is fetched from.
        OSError: a folder cannot be read.
    """
    gathered, seen = Gathered(), set[str]()
    for place in places:
        for path, name, inner in _named(place, choice.follow_symlinks):
            is_address = _ADDRESS.match(place) is not None
            whole = name if is_address else os.path.abspath(path)  # noqa: PTH100 (links stay)
            if whole in seen:
                continue
            seen.add(whole)
            if not choice.takes(name, inner, PurePosixPath(name).name):
                gathered.passed_over.append(name)
            elif is_address:
                gathered.files.append(FoundFile(path, name, _not_weights(path), uri=name))
            elif (found := look_at(path, name, choice.follow_symlinks)) is not None:
                gathered.files.append(found)
    gathered.files.sort(key=lambda one: one.name)
    gathered.passed_over.sort()
    return gathered


def _named(place: str, follow_symlinks: bool) -> Iterator[tuple[Path, str, str]]:
    """Each file of a place: where it is, its name, and its name below the place."""
    if scheme := _ADDRESS.match(place):
        if scheme[1].lower() not in SCHEMES:
            raise ValueError(
                f"{place}: nothing is fetched from {scheme[0]} by a scan, only from "
                f"{' and '.join(f'{one}://' for one in SCHEMES)}. Download it and name the file."
            )
        yield Path(place.rpartition("/")[2]), place, place.rpartition("/")[2]
        return
    for root in _roots(place):
        if not root.is_dir():
            yield root, root.as_posix(), root.name
            continue
        for path in walk(root, follow_symlinks):
            inner = path.relative_to(root).as_posix()
            yield path, path.as_posix(), inner


def _roots(place: str) -> list[Path]:
    """The file or folder of this very name, else what the pattern matches."""
    path = Path(place)
    if path.exists() or path.is_symlink():
        return [path]
    # Hidden files too: an image server does not pass them over.
    matches = sorted(glob(place, recursive=True, include_hidden=True))  # noqa: PTH207 (a text)
    if not matches:
        raise FileNotFoundError(
            f"There is no {place} on this machine, and as a pattern it matches nothing. Name a "
            "file, a folder, or a pattern in quotes, such as 'loras/**/*.safetensors'."
        )
    return [Path(match) for match in matches]


def _not_weights(path: Path) -> RefusedFileError | None:
    """Refuses an address of something other than one file of weights."""
    if path.suffix.lower() in AUDITED:
        return None
    return RefusedFileError(
        "NOT_SAFETENSORS",
        "An address names one safetensors file, such as hf://OWNER/NAME/FILE.safetensors.",
    )
