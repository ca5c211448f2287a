"""Opens a DSSE envelope: what is in it counts only with a signature of a trusted key.

The format is that of https://github.com/secure-systems-lab/dsse, of which one line has to be
written here: the bytes that are signed. The signatures are checked by `cryptography`.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any

from loragate._signed.keys import TrustedKey, TrustedKeys
from loragate._signed.refusal import SignatureRefused
from loragate._signed.strict import strict_json

PAYLOAD_TYPE = "application/vnd.in-toto+json"

LARGEST_BYTES = 1024 * 1024
"""Of an envelope; a verdict has a few KiB."""

_MOST_SIGNATURES = 32
_REMEDY = "Load nothing on it; get the verdict again from the service that gave it."


@dataclass(frozen=True)
class Opened:
    """What a trusted key has signed, and the id of that key."""

    payload: bytes
    key_id: str


@dataclass(frozen=True)
class _Signature:
    """One signature; the id is a hint that nobody has signed."""

    key_id: str
    value: bytes


def open_envelope(
    envelope: bytes, keys: TrustedKeys, *, what: str = "verdict", remedy: str = _REMEDY
) -> Opened:
    """The payload that a trusted key has signed.

    Args:
        envelope: DSSE in JSON.
        keys: whose signatures are believed.
        what: is signed, as refusals call it.
        remedy: of refusals, a sentence.

    Raises:
        SignatureRefused: there is no such thing in it.
    """
    if not envelope:
        raise SignatureRefused(
            f"The {what} has no signature.",
            "Set signing.keys of the service, or do not require a signature.",
        )
    try:
        payload, signatures = _parts(envelope)
    except ValueError as error:
        raise SignatureRefused(f"It is no envelope of a {what}: {error}", remedy) from None
    message = signed_bytes(payload)
    trusted = keys.current()
    for signature in signatures:
        for key in trusted:
            if _is_by(key, signature.value, message):
                return Opened(payload, key.id)
    raise _by_nobody(signatures, keys, trusted, what, remedy)


def signed_bytes(payload: bytes) -> bytes:
    """What is signed of a payload: the "pre-authentication encoding" of DSSE."""
    kind = PAYLOAD_TYPE.encode("ascii")
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def _by_nobody(
    signatures: list[_Signature],
    keys: TrustedKeys,
    trusted: tuple[TrustedKey, ...],
    what: str,
    remedy: str,
) -> SignatureRefused:
    names = sorted({one.key_id for one in signatures if one.key_id})
    if revoked := [name for name in names if name in keys.revoked]:
        return SignatureRefused(
            f"The {what} names the key {', '.join(revoked)}, which is revoked.",
            "Have it signed again, by a key that is in force.",
        )
    return SignatureRefused(
        f"No key that is trusted here has signed the {what}: it names "
        f"{', '.join(names) or 'no key'}, trusted are {', '.join(key.id for key in trusted)}. It "
        "is signed by somebody else, by a key that was withdrawn, or was changed since.",
        remedy,
    )


def _parts(envelope: bytes) -> tuple[bytes, list[_Signature]]:
    if len(envelope) > LARGEST_BYTES:
        raise ValueError(f"It has {len(envelope)} bytes, more than any that is signed.")
    fields = strict_json(envelope)
    if fields.get("payloadType") != PAYLOAD_TYPE:
        raise ValueError(f"Its payloadType is not {PAYLOAD_TYPE}.")
    signatures = fields.get("signatures")
    if not isinstance(signatures, list) or not 0 < len(signatures) <= _MOST_SIGNATURES:
        raise ValueError("It has no signature, or too many.")
    return _bytes(fields.get("payload")), [_signature(one) for one in signatures]


def _signature(fields: Any) -> _Signature:
    if not isinstance(fields, dict) or not isinstance(fields.get("keyid", ""), str):
        raise ValueError("One of its signatures is none.")
    return _Signature(fields.get("keyid", ""), _bytes(fields.get("sig")))


def _bytes(text: Any) -> bytes:
    if not isinstance(text, str) or not text:
        raise ValueError("A part of it is missing.")
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raise ValueError("A part of it is no base64.") from None


def _is_by(key: TrustedKey, signature: bytes, message: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.hashes import SHA256

    try:
        if isinstance(key.key, Ed25519PublicKey):
            key.key.verify(signature, message)
        else:
            key.key.verify(signature, message, ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True
