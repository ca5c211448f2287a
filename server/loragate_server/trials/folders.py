"""Subjects that an operator brings: a folder with one folder of pictures for each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from loragate_server.concepts.gathering import SUFFIXES, gather
from loragate_server.trials.errors import TrialError
from loragate_server.trials.nouns import slug


def subjects_in(folder: Path) -> Mapping[str, tuple[tuple[Path, str], ...]]:
    """Name to its pictures, each with its hand; a picture that lies loose is a subject of its own.

    The name is that of the folder or file, with spaces for what joins words: red-teapot is "red
    teapot". What begins with a point is left out.

    Raises:
        TrialError: no such folder, nothing in it, or two names that are one.
        NoDecisionError: CONCEPT_PICTURES_INVALID for a subject without pictures.
        OSError: it cannot be read.
    """
    if not folder.is_dir():
        raise TrialError(f"{folder} is no folder; name one with a folder of pictures per subject")
    found: dict[str, tuple[tuple[Path, str], ...]] = {}
    for path in sorted(folder.iterdir()):
        loose = path.is_file() and path.suffix.lower() in SUFFIXES
        if path.name.startswith(".") or not (path.is_dir() or loose):
            continue
        name = slug(path.stem if loose else path.name).replace("-", " ")
        if not name:
            raise TrialError(f"{path} has no letter a to z or digit in its name; rename it")
        if name in found:
            raise TrialError(f"{folder} holds two subjects called {name!r}; rename one")
        found[name] = ((path, ""),) if loose else tuple(gather([path]))
    if not found:
        raise TrialError(f"{folder} holds no pictures; put a folder of them there per subject")
    return found
