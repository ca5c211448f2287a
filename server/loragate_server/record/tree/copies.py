"""`Copy`: a folder or bucket that gets each checkpoint, so that it lies where the log does not.

It holds `NAME/checkpoint`, the newest, and `NAME/checkpoints/SIZE`, each of them. A copy that
another, longer or different tree has written to is left as it is: that is what it is there for.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from typing import Protocol

from loragate_server.record.tree.checkpoint import Checkpoint, parse_checkpoint
from loragate_server.record.tree.note import Note, NoteError, NoteSignature, parse_note

Consistency = Callable[[int, int], list[bytes]]
"""Proof that the tree of the second size continues the one of the first."""

RootAt = Callable[[int], bytes]


class ExportError(Exception):
    """A checkpoint was not taken; the text says by whom and why."""


class Taker(Protocol):
    """Whoever is given checkpoints."""

    @property
    def label(self) -> str:
        """Name for logs and metrics."""

    def take(
        self, note: Note, checkpoint: Checkpoint, consistency: Consistency, root_at: RootAt
    ) -> tuple[NoteSignature, ...]:
        """Gives a checkpoint away, and returns what was signed for it.

        Raises:
            ExportError: it was not taken.
        """


class Copy:
    """A place of fsspec."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    @property
    def label(self) -> str:
        """The place without user and password."""
        scheme, mark, rest = self._url.rpartition("://")
        return f"{scheme}{mark}{rest.rpartition('@')[2]}"

    def take(
        self, note: Note, checkpoint: Checkpoint, consistency: Consistency, root_at: RootAt
    ) -> tuple[NoteSignature, ...]:
        """Writes the checkpoint, unless one is there that it does not continue.

        Raises:
            ExportError: it cannot be written, or the place knows a longer or another tree.
        """
        try:
            self._take(note, checkpoint, root_at)
        except ExportError:
            raise
        except Exception as error:  # each file system of fsspec has errors of its own
            raise ExportError(f"{self.label}: {type(error).__name__}: {error}") from error
        return ()

    def _take(self, note: Note, checkpoint: Checkpoint, root_at: RootAt) -> None:
        from fsspec.core import url_to_fs

        files, root = url_to_fs(self._url)
        folder = posixpath.join(root, checkpoint.origin.replace("/", "_"))
        newest = posixpath.join(folder, "checkpoint")
        kept = posixpath.join(folder, "checkpoints", f"{checkpoint.size:020}")
        for file in (newest, kept):
            files.invalidate_cache()
            if files.exists(file):
                self._require_continued(files.cat_file(file), checkpoint, root_at)
        files.makedirs(posixpath.dirname(kept), exist_ok=True)
        for file in (kept, newest):
            with files.transaction:  # whole or not at all, where a file system could do otherwise
                files.pipe_file(file, note.whole.encode())

    def _require_continued(self, data: bytes, checkpoint: Checkpoint, root_at: RootAt) -> None:
        try:
            there = parse_checkpoint(parse_note(data.decode()).text)
        except (NoteError, UnicodeDecodeError) as error:
            raise ExportError(f"{self.label} holds what is no checkpoint: {error}") from None
        if there.size > checkpoint.size:
            raise ExportError(
                f"{self.label} has a checkpoint of {there.size} lines, and this log has only "
                f"{checkpoint.size}: it was cut or rolled back"
            )
        if there.origin != checkpoint.origin or root_at(there.size) != there.root:
            raise ExportError(f"{self.label} has another checkpoint of {there.size} lines: a fork")
