"""Keys to sign verdicts with, as files, and OpenSSL's own command to check what was signed."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import Literal

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

Kind = Literal["ed25519", "p256"]
PrivateKey = Ed25519PrivateKey | ec.EllipticCurvePrivateKey


def new_key(kind: Kind = "ed25519") -> PrivateKey:
    """A private key of a kind that may sign verdicts."""
    if kind == "ed25519":
        return Ed25519PrivateKey.generate()
    return ec.generate_private_key(ec.SECP256R1())


def write_private(key: PrivateKey, path: Path) -> Path:
    """Writes a private key so that only its owner can read it."""
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.touch(mode=0o600)
    path.write_bytes(pem)
    return path


def write_public(key: PrivateKey, path: Path) -> Path:
    """Writes the public half."""
    path.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return path


def openssl_accepts(envelope: bytes, public_key: Path, folder: Path, signature: int = 0) -> bool:
    """Whether OpenSSL's command finds that a key has signed an envelope.

    Args:
        envelope: DSSE in JSON.
        public_key: PEM.
        folder: for what the command reads.
        signature: which of the signatures.
    """
    parts = json.loads(envelope)
    body, kind = base64.b64decode(parts["payload"]), parts["payloadType"].encode()
    message, signed = folder / "message", folder / "signature"
    message.write_bytes(b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(body), body))
    signed.write_bytes(base64.b64decode(parts["signatures"][signature]["sig"]))
    words = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", str(public_key), "-rawin"]
    if b"ED25519" not in _described(public_key):
        words += ["-digest", "sha256"]
    done = subprocess.run(
        [*words, "-in", str(message), "-sigfile", str(signed)], capture_output=True, check=False
    )
    return done.returncode == 0


def _described(public_key: Path) -> bytes:
    words = ["openssl", "pkey", "-pubin", "-in", str(public_key), "-noout", "-text"]
    return subprocess.run(words, capture_output=True, check=True).stdout
