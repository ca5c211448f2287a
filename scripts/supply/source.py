"""The commit that something is built from, and its files and nothing else."""

from __future__ import annotations

import os
import subprocess
import tarfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

EPOCH = "SOURCE_DATE_EPOCH"


class SourceError(Exception):
    """What would be built cannot be said to be a commit; the text says why, and what to do."""


@dataclass(frozen=True)
class Source:
    """A commit.

    Attributes:
        root: of the working tree.
        commit: in full, hexadecimal.
        epoch: when it was made, in seconds since 1970.
    """

    root: Path
    commit: str
    epoch: int

    def export(self, place: Path) -> None:
        """Writes the files of the commit to a folder, without what the working tree has besides."""
        packed = _git(self.root, "archive", "--format=tar", self.commit)
        with tarfile.open(fileobj=BytesIO(packed)) as archive:
            # Python has it since 3.11.4
            archive.extraction_filter = getattr(tarfile, "data_filter", None)
            archive.extractall(place)  # noqa: S202 - of our own repository


def clean_source(root: Path) -> Source:
    """The commit of a working tree that has nothing else in it.

    Raises:
        SourceError: something was changed, added or removed since, or it is no working tree.
    """
    changed = _git(root, "status", "--porcelain", "--untracked-files=all").decode(errors="replace")
    if lines := changed.splitlines():
        named = ", ".join(line[3:] for line in lines[:5])
        more = f" and {len(lines) - 5} more" if len(lines) > 5 else ""
        raise SourceError(
            f"The working tree {root} differs from its commit: {named}{more}. Commit, stash or "
            "remove that: what is attested has to be a commit."
        )
    commit = _git(root, "rev-parse", "--verify", "HEAD^{commit}").decode().strip()
    return Source(root, commit, _committed_at(root))


def epoch_of(root: Path) -> int:
    """The moment that goes into what is built: SOURCE_DATE_EPOCH, else that of the commit.

    Raises:
        SourceError: neither is there, or the variable holds no whole number.
    """
    given = os.environ.get(EPOCH, "")
    if not given:
        return _committed_at(root)
    if not given.isascii() or not given.isdecimal():
        raise SourceError(f"{EPOCH} is a number of seconds since 1970, not {given!r}.")
    return int(given)


def _committed_at(root: Path) -> int:
    return int(_git(root, "log", "-1", "--format=%ct"))


def _git(root: Path, *words: str) -> bytes:
    command = ["git", "-C", str(root), *words]
    try:
        done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603
    except OSError as error:
        raise SourceError(f"git cannot be run: {error.strerror}. Install it.") from None
    if done.returncode:
        said = " ".join(done.stderr.decode(errors="replace").split())[:300]
        raise SourceError(
            f"git says nothing of {root}: {said}. Work in a clone, or set {EPOCH} where only the "
            "moment is wanted."
        )
    return done.stdout
