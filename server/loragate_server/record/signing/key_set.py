"""The public keys as a JSON Web Key Set, for those who check verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from loragate_server.record.signing.keys import PublicKey


def key_set(keys: Mapping[str, PublicKey]) -> dict[str, Any]:
    """The set as RFC 7517 has it.

    Args:
        keys: by their ids.

    Raises:
        ImportError: joserfc is not installed.
    """
    from joserfc.jwk import ECKey, OKPKey

    entries = []
    for name, key in keys.items():
        pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        made, algorithm = (
            (OKPKey.import_key(pem), "EdDSA")
            if isinstance(key, Ed25519PublicKey)
            else (ECKey.import_key(pem), "ES256")
        )
        entries.append(made.as_dict(private=False, kid=name, use="sig", alg=algorithm))
    return {"keys": entries}
