"""`Checkpoint`: the size and the root of a tree, as C2SP's tlog-checkpoint writes them."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from loragate_server.record.tree.merkle import EMPTY_ROOT, HASH_BYTES
from loragate_server.record.tree.note import (
    Note,
    NoteError,
    NoteSignature,
    Verifier,
    is_name,
    signed_by,
)

_MAX_SIZE = 1 << 63


@dataclass(frozen=True)
class Checkpoint:
    """What a log has said of itself: so many lines, with this root.

    Attributes:
        origin: name of the tree; the name of the log's key in notes, too.
        size: lines in the tree.
        root: 32 bytes.
    """

    origin: str
    size: int = 0
    root: bytes = EMPTY_ROOT

    @property
    def text(self) -> str:
        """What is signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


def parse_checkpoint(text: str) -> Checkpoint:
    """Reads the text of a note.

    Raises:
        NoteError: it is no checkpoint.
    """
    lines = text.split("\n")
    if len(lines) != 4 or lines[3]:  # what other logs may write below the root, this one does not
        raise NoteError("it is no checkpoint of three lines")
    origin, size, root = lines[:3]
    if not is_name(origin):
        raise NoteError("the checkpoint has no proper origin")
    if not (size.isascii() and size.isdigit()) or (size[0] == "0" and size != "0"):
        raise NoteError("the checkpoint has no proper size")
    if len(size) > 19 or int(size) >= _MAX_SIZE:
        raise NoteError("the size of the checkpoint is too large")
    return Checkpoint(origin, int(size), decode_hash(root))


def decode_hash(encoded: str) -> bytes:
    """A hash in base64.

    Raises:
        NoteError: it is none.
    """
    try:
        decoded = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise NoteError("a hash is not base64") from None
    if len(decoded) != HASH_BYTES or base64.b64encode(decoded).decode() != encoded:
        raise NoteError(f"a hash has not {HASH_BYTES} bytes")
    return decoded


def trusted_checkpoint(note: Note, keys: Iterable[Ed25519PublicKey]) -> Checkpoint:
    """The checkpoint of a note that one of the log's keys has signed.

    Raises:
        NoteError: it is no checkpoint, or none of the keys has signed it.
    """
    found = parse_checkpoint(note.text)
    # Every key is tried: a wrong signature of one of them is never overlooked.
    signed = [signed_by(note, Verifier(found.origin, key)) for key in keys]
    if not any(signed):
        raise NoteError(f"no key that is trusted has signed the checkpoint of {found.origin}")
    return found


def log_signatures(
    note: Note, origin: str, keys: Iterable[Ed25519PublicKey]
) -> tuple[NoteSignature, ...]:
    """Of the signatures below a note those by keys of its log, each once; see `signed_by`."""
    known = {(one.name, one.key_id) for one in (Verifier(origin, key) for key in keys)}
    found = (one for one in note.signatures if (one.name, one.key_id) in known)
    return tuple(dict.fromkeys(found))
