"""Signed notes: read as other programs write them, and never believed half."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from loragate_server.record.tree.checkpoint import (
    Checkpoint,
    parse_checkpoint,
    trusted_checkpoint,
)
from loragate_server.record.tree.note import (
    WITNESS_KEY,
    Note,
    NoteError,
    Verifier,
    log_signature,
    parse_note,
    seen_at,
    signed_by,
    witness_signature,
)

# The example in the documentation of golang.org/x/mod/sumdb/note.
VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6"
    "KE6RyyBwJnAM=\n"
)
MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
KEY = Ed25519PrivateKey.generate()
CHECKPOINT = Checkpoint("log.example/1", 7, bytes(range(32)))


def signed(text: str = CHECKPOINT.text, name: str = "log.example/1") -> Note:
    return Note(text, (log_signature(text, name, KEY.public_key(), KEY.sign),))


def test_a_published_note_and_its_key_are_read_as_they_were_written() -> None:
    raw = base64.b64decode(VKEY.split("+", 2)[2])
    verifier = Verifier("PeterNeumann", Ed25519PublicKey.from_public_bytes(raw[1:]))
    note = parse_note(NOTE)
    assert verifier.vkey == VKEY
    assert signed_by(note, verifier)
    assert note.whole == NOTE
    with pytest.raises(NoteError, match="is wrong"):
        signed_by(parse_note(NOTE.replace("answer", "solution")), verifier)


def test_a_witness_signs_the_moment_too() -> None:
    verifier = Verifier("witness", KEY.public_key(), WITNESS_KEY)
    line = witness_signature(CHECKPOINT.text, "witness", KEY.public_key(), KEY.sign, MOMENT)
    note = parse_note(Note(CHECKPOINT.text, (*signed().signatures, line)).whole)
    assert seen_at(note, verifier) == MOMENT
    assert seen_at(signed(), verifier) is None
    data = bytearray(line.data)
    data[7] ^= 1  # a second later
    forged = type(line)(line.name, line.key_id, bytes(data))
    for wrong in (forged, type(line)(line.name, line.key_id, line.data[:-1])):
        with pytest.raises(NoteError):
            seen_at(Note(CHECKPOINT.text, (wrong,)), verifier)


def test_a_checkpoint_counts_only_with_a_signature_of_a_known_key_in_its_own_name() -> None:
    known, other = KEY.public_key(), Ed25519PrivateKey.generate().public_key()
    assert trusted_checkpoint(signed(), [other, known]) == CHECKPOINT
    for note, keys in (
        (signed(), [other]),
        (signed(), []),
        (signed(name="log.example/2"), [known]),
        (Note(CHECKPOINT.text, ()), [known]),
    ):
        with pytest.raises(NoteError, match="no key that is trusted"):
            trusted_checkpoint(note, keys)
    # A signature that names a known key and is wrong is never passed over for a right one.
    one = signed().signatures[0]
    wrong = type(one)(one.name, one.key_id, bytes(64))
    with pytest.raises(NoteError, match="is wrong"):
        trusted_checkpoint(Note(CHECKPOINT.text, (one, wrong)), [known])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a\n1\n",
        f"a\n1\n{base64.b64encode(bytes(32)).decode()}",
        f"a\n01\n{base64.b64encode(bytes(32)).decode()}\n",
        f"a\n-1\n{base64.b64encode(bytes(32)).decode()}\n",
        f"a\n١\n{base64.b64encode(bytes(32)).decode()}\n",
        f"a\n{1 << 63}\n{base64.b64encode(bytes(32)).decode()}\n",
        f"a\n{'9' * 5000}\n{base64.b64encode(bytes(32)).decode()}\n",
        f"a b\n1\n{base64.b64encode(bytes(32)).decode()}\n",
        f"\n1\n{base64.b64encode(bytes(32)).decode()}\n",
        f"a\n1\n{base64.b64encode(bytes(31)).decode()}\n",
        "a\n1\n***\n",
        f"a\n1\n{base64.b64encode(bytes(32)).decode()}\nextension\n",
    ],
)
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(NoteError):
        parse_checkpoint(text)


@pytest.mark.parametrize(
    "data",
    [
        "",
        "text\n",
        "text\n\n— name",
        "text\n\nname AAAAAAAA\n",
        "text\n\n— na+me AAAAAAAA\n",
        "text\n\n— name ****\n",
        "text\n\n— name AAAA\n",
        f"{'x' * 70_000}\n\n— name AAAAAAAA\n",
    ],
)
def test_what_is_no_signed_note_is_refused(data: str) -> None:
    with pytest.raises(NoteError):
        parse_note(data)
