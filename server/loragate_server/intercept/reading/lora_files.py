"""The files of a server's folder of LoRAs, for names that the server looks up among them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath

from loragate_server.intercept.reading.references import (
    WEIGHT_SUFFIXES,
    is_file,
    with_slashes,
)
from loragate_server.intercept.refusals import unnamed

_MOST_FILES = 50_000
_MOST_CHARS = 1024
_MOST_LOOK_UPS = 640
"""Of more names than this no audit takes in all, so what they mean does not matter."""

Resolver = Callable[[str, "LoraFiles"], tuple[str, ...]]
"""From a name to the files below the folder that a server may load for it."""


@dataclass(frozen=True)
class LoraFiles:
    """What lies in a folder, read once and only when a name has to be looked up.

    Attributes:
        folder: the server's folder of LoRAs, where loragate sees it; empty where it sees none.
    """

    folder: str
    _meant: dict[tuple[Resolver, str], tuple[str, ...]] = field(default_factory=dict, repr=False)

    def meant(self, name: str, resolver: Resolver) -> tuple[str, ...]:
        """What a name means by a resolver; empty where it means no file that is there."""
        if (resolver, name) not in self._meant:
            if len(self._meant) >= _MOST_LOOK_UPS:
                return ()
            self._meant[resolver, name] = resolver(name, self)
        return self._meant[resolver, name]

    def meant_by(self, name: str, resolvers: Iterable[Resolver]) -> tuple[str, ...]:
        """What a name means by any of several resolvers, each file once.

        On Windows a backslash leads into a folder; elsewhere it may stand in the name of a file.
        """
        names = dict.fromkeys((name, with_slashes(name)))
        found = (path for r in resolvers for one in names for path in self.meant(one, r))
        return tuple(dict.fromkeys(found))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Paths of all files of weights below the folder, in the order of their letters.

        Empty where loragate does not see the folder; then nothing in it can be audited either.

        Raises:
            RefusedRequestError: ADAPTER_UNNAMED where there are too many to look through.
        """
        found: list[str] = []
        if not self.folder:
            return ()
        for folder, folders, files in os.walk(self.folder, followlinks=True):
            real = os.path.realpath(folder)
            folders[:] = [one for one in folders if not _leads_back(folder, one, real)]
            below = os.path.relpath(folder, self.folder)
            for file in files:
                if file.lower().endswith(WEIGHT_SUFFIXES):
                    found.append(file if below == "." else f"{below}/{file}")
            if len(found) > _MOST_FILES:
                raise unnamed(
                    "The folder of LoRAs",
                    "holds too many files to look a name up in.",
                    "Name the file by its path.",
                )
        return tuple(sorted(found))


def _leads_back(folder: str, inner: str, real: str) -> bool:
    """Whether a link leads to a folder that holds it, so that a walk would never end."""
    target = os.path.realpath(f"{folder}/{inner}")
    return real == target or real.startswith(f"{target}/")


def as_it_stands(name: str, files: LoraFiles) -> tuple[str, ...]:
    """The file below the folder that has the name itself, whatever it ends with.

    What opens a path asks for no suffix.
    """
    if not files.folder or len(name) > _MOST_CHARS:
        return ()
    folder = os.path.normpath(files.folder)
    path = os.path.normpath(name if name.startswith("/") else f"{folder}/{name}")
    return (name,) if path.startswith(f"{folder}/") and is_file(path) else ()


def stem_of(path: str) -> str:
    """The name of a file without its folder and its last suffix."""
    return PurePosixPath(path).stem


def without_suffix(path: str) -> str:
    """A path without its last suffix."""
    folder, slash, file = path.rpartition("/")
    return f"{folder}{slash}{stem_of(file)}"
