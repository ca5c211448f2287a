"""Signed notes with Ed25519, as C2SP's signed-note and tlog-cosignature have them.

A note is a text, an empty line, and lines of signatures. A log signs the text; a witness signs the
text together with the moment at which it saw it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

LOG_KEY, WITNESS_KEY = 0x01, 0x04
"""Kinds of a key in signed notes: Ed25519, and Ed25519 with a moment."""

MAX_NOTE_BYTES = 64 << 10
_MARK = "\N{EM DASH} "
_ID_BYTES, _TIME_BYTES, _SIGNATURE_BYTES = 4, 8, 64

Sign = Callable[[bytes], bytes]
"""Message to its 64 bytes of Ed25519 signature."""


class NoteError(ValueError):
    """A note cannot be believed; the text says why."""


@dataclass(frozen=True)
class NoteSignature:
    """A line below a note: who signed, by name and by the first bytes of a digest of the key."""

    name: str
    key_id: bytes
    data: bytes

    @property
    def line(self) -> str:
        """As it stands in a note, with its line feed."""
        return f"{_MARK}{self.name} {base64.b64encode(self.key_id + self.data).decode()}\n"


@dataclass(frozen=True)
class Note:
    """A text, which ends with a line feed, and its signatures."""

    text: str
    signatures: tuple[NoteSignature, ...]

    @property
    def whole(self) -> str:
        """As it is stored and sent."""
        return f"{self.text}\n{''.join(one.line for one in self.signatures)}"


@dataclass(frozen=True)
class Verifier:
    """A public key, and under which name and as which kind it signs."""

    name: str
    key: Ed25519PublicKey
    kind: int = LOG_KEY

    @property
    def key_id(self) -> bytes:
        """What a signature line begins with."""
        return key_id(self.name, self.kind, self.key)

    @property
    def vkey(self) -> str:
        """As other programs are told the key."""
        raw = bytes([self.kind]) + self.key.public_bytes_raw()
        return f"{self.name}+{self.key_id.hex()}+{base64.b64encode(raw).decode()}"


def parse_note(data: str) -> Note:
    """Takes a note apart; what its signatures are worth, `require_log` and `seen_at` say.

    Raises:
        NoteError: it is no note.
    """
    text, gap, below = data.rpartition("\n\n")
    if not gap or len(data.encode("utf-8", "replace")) > MAX_NOTE_BYTES:
        raise NoteError("it is no signed note")
    if not below.endswith("\n"):
        raise NoteError("the last line of the note is not whole")
    return Note(f"{text}\n", parse_signatures(below))


def parse_signatures(lines: str) -> tuple[NoteSignature, ...]:
    """Takes lines of signatures apart.

    Raises:
        NoteError: one is no such line.
    """
    return tuple(_signature(line) for line in lines.split("\n")[:-1])


def _signature(line: str) -> NoteSignature:
    name, space, encoded = line.removeprefix(_MARK).rpartition(" ")
    if not line.startswith(_MARK) or not space or not is_name(name):
        raise NoteError("a line below the note is no signature")
    try:
        raw = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise NoteError("a signature of the note is not base64") from None
    if len(raw) <= _ID_BYTES:
        raise NoteError("a signature of the note is too short")
    return NoteSignature(name, raw[:_ID_BYTES], raw[_ID_BYTES:])


def is_name(name: str) -> bool:
    """Whether a note can name a key so."""
    return bool(name) and "+" not in name and not any(c.isspace() for c in name)


def key_id(name: str, kind: int, key: Ed25519PublicKey) -> bytes:
    """The first bytes of the digest of a key with its name and its kind."""
    named = name.encode() + b"\n" + bytes([kind]) + key.public_bytes_raw()
    return hashlib.sha256(named).digest()[:_ID_BYTES]


def log_signature(text: str, name: str, key: Ed25519PublicKey, sign: Sign) -> NoteSignature:
    """The signature of the log over a text."""
    return NoteSignature(name, key_id(name, LOG_KEY, key), sign(text.encode()))


def witness_signature(
    text: str, name: str, key: Ed25519PublicKey, sign: Sign, now: datetime
) -> NoteSignature:
    """The signature of a witness over a text that it saw now."""
    moment = int(now.timestamp())
    data = struct.pack(">Q", moment) + sign(_seen(text, moment))
    return NoteSignature(name, key_id(name, WITNESS_KEY, key), data)


def signed_by(note: Note, verifier: Verifier) -> bool:
    """Whether a log's key has signed the text.

    Raises:
        NoteError: it says that this key signed, and that is wrong.
    """
    own = _own(note, verifier)
    for one in own:
        _require(verifier, one.data, note.text.encode())
    return bool(own)


def seen_at(note: Note, verifier: Verifier) -> datetime | None:
    """When a witness signed; None if it did not.

    Raises:
        NoteError: it says that this witness signed, and that is wrong.
    """
    moments = []
    for one in _own(note, verifier):
        if len(one.data) != _TIME_BYTES + _SIGNATURE_BYTES:
            raise NoteError(f"the signature of {verifier.name} has the wrong length")
        (moment,) = struct.unpack(">Q", one.data[:_TIME_BYTES])
        _require(verifier, one.data[_TIME_BYTES:], _seen(note.text, moment))
        moments.append(moment)
    try:
        return datetime.fromtimestamp(min(moments), UTC) if moments else None
    except (OverflowError, OSError, ValueError):
        raise NoteError(f"the signature of {verifier.name} names no moment") from None


def _own(note: Note, verifier: Verifier) -> list[NoteSignature]:
    wanted = (verifier.name, verifier.key_id)
    return [one for one in note.signatures if (one.name, one.key_id) == wanted]


def _require(verifier: Verifier, signature: bytes, message: bytes) -> None:
    try:
        verifier.key.verify(signature, message)
    except InvalidSignature:
        raise NoteError(f"the signature of {verifier.name} is wrong") from None


def _seen(text: str, moment: int) -> bytes:
    return f"cosignature/v1\ntime {moment}\n{text}".encode()
