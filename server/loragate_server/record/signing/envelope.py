"""Envelopes as DSSE has them: a statement with the signatures of all keys that have to sign it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from loragate_server.record.codec import to_json
from loragate_server.record.signing.keys import OpenKey
from loragate_server.record.signing.statement import PAYLOAD_TYPE

if TYPE_CHECKING:
    from securesystemslib.signer import Signature


class NotSignedError(Exception):
    """A key did not sign, of whose device or service the cause tells.

    Attributes:
        key_id: which.
    """

    def __init__(self, key_id: str) -> None:
        super().__init__(f"the key {key_id!r} did not sign")
        self.key_id = key_id


def enveloped(payload: bytes, keys: Iterable[OpenKey]) -> bytes:
    """An in-toto statement, signed by each of these keys, as JSON.

    Args:
        payload: the statement.
        keys: all of them have to sign: a reader who knows only the one that failed would be left
            without.

    Raises:
        NotSignedError: one did not.
    """
    from securesystemslib.dsse import Envelope

    envelope = Envelope(payload, PAYLOAD_TYPE, {})
    for key in keys:
        try:
            envelope.signatures[key.id] = signature(key, envelope.pae())
        except Exception as error:  # what a device or a service may raise is its own affair
            raise NotSignedError(key.id) from error
    return to_json(envelope.to_dict()).encode("ascii")


def signature(key: OpenKey, data: bytes) -> Signature:
    """The signature, which its own public key has to bear out."""
    made = key.signer.sign(data)
    key.signer.public_key.verify_signature(made, data)
    return made
