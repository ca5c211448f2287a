"""Proofs that a line is in a log, as C2SP's tlog-proof writes them: a file that needs no server.

The line itself goes along as the extra data of the format, so one file tells what was decided and
shows that it is on record.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

from loragate_server.record.tree.checkpoint import Checkpoint, decode_hash
from loragate_server.record.tree.merkle import ProofError, leaf_hash, require_inclusion
from loragate_server.record.tree.note import Note, NoteError, parse_note

_HEAD = "c2sp.org/tlog-proof@v1"
MAX_PROOF_BYTES = 16 << 20


@dataclass(frozen=True)
class LineProof:
    """A line of a log, its place in the tree, and the checkpoint that it is shown to be in."""

    line: bytes
    index: int
    path: tuple[bytes, ...]
    note: Note

    @property
    def text(self) -> str:
        """As it is stored."""
        path = "".join(f"{base64.b64encode(one).decode()}\n" for one in self.path)
        extra = base64.b64encode(self.line).decode()
        return f"{_HEAD}\nextra {extra}\nindex {self.index}\n{path}\n{self.note.whole}"

    def require(self, checkpoint: Checkpoint) -> None:
        """Holds the proof to its checkpoint.

        Args:
            checkpoint: of `note`, which is trusted.

        Raises:
            ProofError: the line is not in that tree.
        """
        leaf = leaf_hash(self.line)
        require_inclusion(leaf, self.index, checkpoint.size, self.path, checkpoint.root)


def parse_proof(text: str) -> LineProof:
    """Reads a proof; whether it shows anything, `LineProof.require` says.

    Raises:
        ProofError: it is none, or has no line.
    """
    head, gap, told = text.partition("\n\n")
    first, *rest = head.split("\n")
    if len(text) > MAX_PROOF_BYTES or not gap or first != _HEAD or len(rest) < 2:
        raise ProofError("it is no proof of a line in a log")
    extra, index, *path = rest
    number = index.removeprefix("index ")
    if not extra.startswith("extra ") or not index.startswith("index "):
        raise ProofError("the proof lacks its line or its index")
    if not (number.isascii() and number.isdigit() and len(number) < 20):
        raise ProofError("the proof has no proper index")
    try:
        line = base64.b64decode(extra.removeprefix("extra "), validate=True)
        return LineProof(line, int(number), tuple(map(decode_hash, path)), parse_note(told))
    except (binascii.Error, NoteError, ValueError) as error:
        raise ProofError(f"the proof cannot be read: {error}") from None
