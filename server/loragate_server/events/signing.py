"""Signatures by the scheme of Standard Webhooks: `v1` with HMAC, `v1a` with Ed25519.

The package of that name signs `v1`. Keys of Ed25519 it does not know; for those the text that it
signs is signed here by `cryptography`.
"""

from __future__ import annotations

import base64
import binascii
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from standardwebhooks import Webhook

HMAC_PREFIX, KEY_PREFIX, PUBLIC_PREFIX = "whsec_", "whsk_", "whpk_"
_HMAC_BYTES = range(24, 65)
_SEED_BYTES = 32
MAX_SECRETS = 8
_MAX_FILE_BYTES = 16 << 10


class SecretUnusableError(Exception):
    """A file of secrets cannot be used; the text names it and the remedy, and no secret."""


class Signature(ABC):
    """Signs with one secret."""

    public_key = ""
    """What receivers check with, as Standard Webhooks writes it; empty for a shared secret."""

    @abstractmethod
    def of(self, event_id: str, at: datetime, body: str) -> str:
        """One entry of the header `webhook-signature`."""


class _Shared(Signature):
    def __init__(self, secret: bytes) -> None:
        self._webhook = Webhook(secret)

    def of(self, event_id: str, at: datetime, body: str) -> str:
        return self._webhook.sign(event_id, at, body)


class _Pair(Signature):
    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        public = self._key.public_key().public_bytes_raw()
        self.public_key = PUBLIC_PREFIX + base64.b64encode(public).decode("ascii")

    def of(self, event_id: str, at: datetime, body: str) -> str:
        signed = self._key.sign(f"{event_id}.{int(at.timestamp())}.{body}".encode())
        return f"v1a,{base64.b64encode(signed).decode('ascii')}"


def read_signatures(file: Path) -> tuple[Signature, ...]:
    """One for each line of a file of secrets; several while they are being exchanged.

    Raises:
        SecretUnusableError: it cannot be read, or a line is no secret.
    """
    try:
        with open(file, "rb", opener=_at_once) as opened:
            content = opened.read(_MAX_FILE_BYTES + 1) or b""
        lines = [one.strip() for one in content.decode("ascii").splitlines()]
    except OSError as error:
        raise SecretUnusableError(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise SecretUnusableError(f"{file} holds something else than secrets: {_HOW}") from None
    lines = [one for one in lines if one]
    if not lines or len(lines) > MAX_SECRETS or len(content) > _MAX_FILE_BYTES:
        raise SecretUnusableError(f"{file} has to hold 1 to {MAX_SECRETS} secrets: {_HOW}")
    return tuple(_signature(text, file, number) for number, text in enumerate(lines, 1))


def _at_once(file: str, flags: int) -> int:
    """Opens a pipe that nobody writes to as an empty file: else it is waited for, for ever."""
    return os.open(file, flags | os.O_NONBLOCK)


def signed_headers(
    signatures: Sequence[Signature], event_id: str, at: datetime, body: str
) -> dict[str, str]:
    """The headers of an attempt.

    Args:
        signatures: at least one.
        event_id: the same at every attempt.
        at: moment of the attempt, timezone-aware: receivers refuse what is older than minutes.
        body: as it is sent.
    """
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(one.of(event_id, at, body) for one in signatures),
    }


_HOW = 'one per line, made by `echo "whsec_$(openssl rand -base64 32)"`, or with whsk_ for Ed25519'


def _signature(text: str, file: Path, line: int) -> Signature:
    try:
        if text.startswith(HMAC_PREFIX):
            secret = base64.b64decode(text.removeprefix(HMAC_PREFIX), validate=True)
            if len(secret) in _HMAC_BYTES:
                return _Shared(secret)
        elif text.startswith(KEY_PREFIX):
            secret = base64.b64decode(text.removeprefix(KEY_PREFIX), validate=True)
            # Some tools write the public half behind the seed.
            if len(secret) in (_SEED_BYTES, 2 * _SEED_BYTES):
                return _Pair(secret[:_SEED_BYTES])
    except binascii.Error:
        pass
    raise SecretUnusableError(f"{file}: line {line} is no secret of 24 to 64 bytes: {_HOW}")
