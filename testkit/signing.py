"""Keys to sign verdicts with, as files, and OpenSSL's own command to check what was signed."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Mapping
from datetime import UTC
from pathlib import Path
from typing import Any, Literal

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from loragate.v1 import audit_pb2

EXTENSION = "urn:loragate:verdict:v1"

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


def key_set(keys: Mapping[str, PrivateKey]) -> bytes:
    """The public halves as a JSON Web Key Set, by their ids."""
    return json.dumps({"keys": [_jwk(name, key) for name, key in keys.items()]}).encode()


def _jwk(name: str, key: PrivateKey) -> dict[str, str]:
    public = key.public_key()
    if isinstance(public, ec.EllipticCurvePublicKey):
        x, y = public.public_numbers().x, public.public_numbers().y
        numbers = {"x": _url(x.to_bytes(32, "big")), "y": _url(y.to_bytes(32, "big"))}
        return {"kid": name, "kty": "EC", "crv": "P-256", **numbers}
    raw = public.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return {"kid": name, "kty": "OKP", "crv": "Ed25519", "x": _url(raw)}


def _url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def statement_of(verdict: audit_pb2.Verdict) -> dict[str, Any]:
    """What a server signs of a verdict that it answers with, as docs/signed-verdicts.md has it."""
    kind, would_be = (
        audit_pb2.VerdictKind.Name(one).removeprefix("VERDICT_KIND_")
        for one in (verdict.verdict, verdict.would_be_verdict)
    )
    mode = audit_pb2.Mode.Name(verdict.mode).removeprefix("MODE_")
    passed = kind == "ALLOW" and mode == "ENFORCE" and verdict.binding
    decided, expires = (
        one.ToDatetime(tzinfo=UTC).isoformat() for one in (verdict.decided_at, verdict.expires_at)
    )
    said = {
        "decisionId": verdict.decision_id,
        "verdict": kind,
        "wouldBeVerdict": would_be,
        "mode": mode,
        "binding": verdict.binding,
        "dryRun": verdict.dry_run,
        "restrictedTo": list(verdict.restricted_to_concept_ids),
        "adapters": [
            {
                "sha256": one.sha256,
                "kind": "EMBEDDING" if one.kind == audit_pb2.ADAPTER_KIND_EMBEDDING else "LORA",
                "configSha256": "",
                "sizeBytes": one.size_bytes,
                "denoiserStrength": one.denoiser_strength,
                "textEncoderStrength": one.text_encoder_strength,
            }
            for one in verdict.adapters
        ],
        "loaders": list(verdict.loaders),
        "baseModel": verdict.base_model,
        "digests": {
            "baseModel": verdict.digests.base_model,
            "library": verdict.digests.library,
            "policy": verdict.digests.policy,
            "calibration": "",
        },
        "engineVersion": verdict.engine_version,
        "decidedAt": decided,
        "expiresAt": expires,
    }
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [
            {"name": f"adapter-{number}", "digest": {"sha256": one.sha256}}
            for number, one in enumerate(verdict.adapters)
        ],
        "predicateType": "https://slsa.dev/verification_summary/v1",
        "predicate": {
            "verificationResult": "PASSED" if passed else "FAILED",
            EXTENSION: said,
        },
    }


def envelope_of(statement: Mapping[str, Any], **keys: PrivateKey) -> bytes:
    """The statement signed by each of these keys, by their ids."""
    return enveloped(json.dumps(statement).encode(), keys)


def enveloped(
    payload: bytes, keys: Mapping[str, PrivateKey], kind: str = "application/vnd.in-toto+json"
) -> bytes:
    """Any bytes, signed by each of these keys."""
    name = kind.encode()
    message = b"DSSEv1 %d %b %d %b" % (len(name), name, len(payload), payload)
    signatures = [
        {"keyid": key_id, "sig": base64.b64encode(_sign(key, message)).decode()}
        for key_id, key in keys.items()
    ]
    body = base64.b64encode(payload).decode()
    return json.dumps({"payload": body, "payloadType": kind, "signatures": signatures}).encode()


def _sign(key: PrivateKey, message: bytes) -> bytes:
    if isinstance(key, Ed25519PrivateKey):
        return key.sign(message)
    return key.sign(message, ec.ECDSA(SHA256()))


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
