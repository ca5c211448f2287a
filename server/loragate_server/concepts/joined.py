"""The tensors of all concepts of a large library, joined once and mapped into memory from then on.

Concepts have a file each (`cache`), and an audit reads the same tensors of all of them as one.
Small libraries are joined in memory whenever a server starts. Of a large one that would be
gigabytes that no other process can use: so it is joined into a file, whose pages the system shares,
drops where memory is short, and reads again. The file is one more copy and no authority: it is
checked when it is opened, and made anew from the files of the concepts.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from loragate_server.concepts.cache import read_checked, sha256_of
from loragate_server.files import exclusive, whole_file

SUFFIX = ".joined"
KEPT = 2
"""Files of one base model that stay; each is as large as all that it joins."""

LARGE = 1 << 30
"""Bytes from which on tensors are mapped."""

_log = logging.getLogger(__name__)

Tensors = dict[str, Tensor]


class JoinedFiles:
    """The joined tensors in a folder that several servers may share.

    Args:
        folder: of the concepts' own files.
        stem: what the files' names begin with.
        large: bytes from which on tensors are written and mapped.
    """

    def __init__(self, folder: Path, stem: str, large: int = LARGE) -> None:
        self._folder = folder
        self._stem = stem
        self._large = large

    def tensors(self, names: Sequence[str], make: Callable[[], Tensors]) -> Tensors:
        """The tensors of some concepts, joined.

        Args:
            names: of the files that are joined, in order; they name their content.
            make: joins them in memory.
        """
        key = hashlib.sha256("\0".join(names).encode()).hexdigest()
        path = self._folder / f"{self._stem}-{key[:32]}{SUFFIX}"
        found = read_checked(path, mapped=True)
        if found is not None:
            return found
        made = make()
        if sum(each.nbytes for each in made.values()) < self._large:
            return made
        return self._mapped(path, made)

    def _mapped(self, path: Path, made: Tensors) -> Tensors:
        """The same tensors out of a file; as they are where none can be written."""
        try:
            with exclusive(path.with_suffix(".lock"), lambda: None):
                # another may have made it since, or what lies there is damaged
                found = read_checked(path, mapped=True)
                if found is None:
                    _write(path, made)
                    found = read_checked(path, mapped=True)
                self._remove_oldest(path)
        except (OSError, SafetensorError) as error:
            _log.warning("%s cannot be written, and its tensors stay in memory: %s", path, error)
            return made
        return found or made

    def _remove_oldest(self, own: Path) -> None:
        others = [path for path in self._folder.glob(f"{self._stem}-*{SUFFIX}") if path != own]
        with contextlib.suppress(OSError):  # another server may remove them as well
            for path in sorted(others, key=lambda one: one.stat().st_mtime)[: 1 - KEPT]:
                path.unlink()
                path.with_suffix(".lock").unlink(missing_ok=True)


def _write(path: Path, tensors: Mapping[str, Tensor]) -> None:
    with whole_file(path) as unfinished:
        save_file(dict(tensors), unfinished, metadata={"sha256": sha256_of(tensors)})
