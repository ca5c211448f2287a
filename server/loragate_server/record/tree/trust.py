"""Reads checkpoints from where they were handed to, and trusts those that known keys signed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from loragate_server.record.tree.checkpoint import trusted_checkpoint
from loragate_server.record.tree.note import Note, NoteError, Verifier, parse_note, seen_at
from loragate_server.record.tree.sealed import Seen


@dataclass(frozen=True)
class Trust:
    """Whose signatures count.

    Attributes:
        logs: keys of the log, of which one has to have signed.
        witnesses: of which one has to have signed, where there are any.
    """

    logs: Sequence[Ed25519PublicKey]
    witnesses: Sequence[Verifier] = ()

    def seen(self, note: Note, where: str) -> Seen:
        """The checkpoint of a note that stands alone, such as that of a proof.

        Raises:
            NoteError: it is not signed as it has to be.
        """
        found = self.signed(note, where)
        if told := self.unwitnessed([found]):
            raise NoteError(f"{where}: {told}")
        return found

    def signed(self, note: Note, where: str) -> Seen:
        """The checkpoint of a note among others, of which `unwitnessed` judges.

        Raises:
            NoteError: no key of the log has signed it, or a signature of a witness is damaged.
        """
        try:
            checkpoint = trusted_checkpoint(note, self.logs)
            moments = [at for one in self.witnesses if (at := seen_at(note, one)) is not None]
        except NoteError as error:
            raise NoteError(f"{where}: {error}") from None
        earliest: datetime | None = min(moments, default=None)
        return Seen(checkpoint, where, earliest)

    def unwitnessed(self, seen: Sequence[Seen]) -> str:
        """Why checkpoints of one tree are not witnessed; empty where they are.

        A log that holds what the longest one says holds what every shorter one should say, so a
        witness that was away for a while is missed only until it has signed again.
        """
        longest = max(one.checkpoint.size for one in seen)
        if not self.witnesses or any(
            one.moment is not None and one.checkpoint.size == longest for one in seen
        ):
            return ""
        names = ", ".join(one.name for one in self.witnesses)
        sizes = [one.checkpoint.size for one in seen if one.moment is not None]
        upto = f"; one has signed that of {max(sizes)} lines" if sizes else ""
        return f"no witness has signed it ({names}){upto}"


def read_notes(place: str) -> list[tuple[str, Note]]:
    """The checkpoints of a file, a history (`checkpoints.jsonl`), or a folder that holds them.

    Args:
        place: a path, or a URL of fsspec.

    Returns:
        Each with the name of where it was found.

    Raises:
        NoteError: there is none, or one is damaged.
        OSError: it cannot be read.
    """
    try:
        held = _held(place)
    except Exception as error:  # each file system of fsspec has errors of its own
        if isinstance(error, OSError) and error.filename:
            raise
        raise OSError(f"{place} cannot be read: {type(error).__name__}: {error}") from error
    found = [one for name, data in held for one in _notes(name, data)]
    if not found:
        raise NoteError(f"{place} holds no checkpoint")
    return found


def _held(place: str) -> list[tuple[str, bytes]]:
    """The files at a place that hold checkpoints: the one that was named, or those in a folder."""
    from fsspec.core import url_to_fs

    files, root = url_to_fs(place)
    names = [root]
    if files.isdir(root):
        names = sorted(name for name in files.find(root) if _is_checkpoint(name))
    return [(name, files.cat_file(name)) for name in names]


def _is_checkpoint(name: str) -> bool:
    *_, folder, file = ("", *name.split("/"))
    return file == "checkpoint" or (folder == "checkpoints" and file.isdigit())


def _notes(name: str, data: bytes) -> Iterator[tuple[str, Note]]:
    try:
        text = data.decode()
        if not text.startswith("{"):
            yield name, parse_note(text)
            return
        for number, line in enumerate(text.splitlines(), start=1):
            yield f"{name}:{number}", parse_note(json.loads(line)["note"])
    except (NoteError, ValueError, KeyError, TypeError) as error:
        raise NoteError(f"{name}: {error}") from None
