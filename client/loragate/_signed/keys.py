"""`TrustedKeys`: the public keys by which verdicts are believed, as files hold them.

The files are looked at before each use and read again when they have changed, so that a key that is
taken out of a set is trusted no longer by programs that run.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loragate._signed.refusal import SignatureRefused
from loragate._signed.strict import strict_json

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    PublicKey = Ed25519PublicKey | EllipticCurvePublicKey

KeyFile = str | os.PathLike[str]
Stamp = tuple[tuple[str, int, int, int], ...]

_LARGEST_BYTES = 1024 * 1024
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_P = 2**255 - 19
_Y8 = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD83D3D706A17C7
_SMALL_ORDER = frozenset({0, 1, _P - 1, _Y8, _P - _Y8})
"""The second coordinates of the eight points of small order (RFC 8032, libsodium's list)."""

_PEM_BEGIN, _PEM_END = b"-----BEGIN", b"-----END PUBLIC KEY-----"
_KINDS = (("OKP", "Ed25519"), ("EC", "P-256"))
_REMEDY = (
    "Name public keys in PEM, or a JSON Web Key Set as `loragate-server signing jwks` prints it."
)


@dataclass(frozen=True)
class TrustedKey:
    """One key.

    Attributes:
        id: `kid` in a key set; of a PEM file the fingerprint.
        fingerprint: lower-case hexadecimal sha256 of the key's SubjectPublicKeyInfo (DER).
    """

    id: str
    fingerprint: str
    key: PublicKey


class TrustedKeys:
    """Public keys whose signatures are believed. Thread-safe.

    Example:
        AuditClient(require_signature=TrustedKeys("loragate.jwks", revoked=["2025-07"]))

    Args:
        files: PEM files with one or more public keys, and JSON Web Key Sets: Ed25519, ECDSA P-256.
        revoked: keys that are not believed even if a file holds them, by id or fingerprint.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file holds something else, or no key is left.
        ImportError: the extra `signed` is not installed.
    """

    def __init__(self, *files: KeyFile, revoked: Iterable[str] = ()) -> None:
        if isinstance(revoked, str):
            raise ValueError(f"revoked is a list of key ids, not {revoked!r}.")
        if not files:
            raise ValueError(f"There is no file with trusted keys. {_REMEDY}")
        require_extra()
        self.files = tuple(Path(file) for file in files)
        self.revoked = frozenset(map(_plain, revoked))
        self._lock = threading.Lock()
        self._seen = self.stamp()
        self._keys = self._read()

    def stamp(self) -> Stamp:
        """Identity of the present content of the files.

        Raises:
            OSError: one is not there.
        """
        stats = [(str(file), file.stat()) for file in self.files]
        return tuple((name, one.st_ino, one.st_size, one.st_mtime_ns) for name, one in stats)

    def current(self) -> tuple[TrustedKey, ...]:
        """The keys that are trusted now; at least one.

        Raises:
            SignatureRefused: the files cannot be read any more, or hold no key any more.
        """
        try:
            with self._lock:
                now = self.stamp()
                if now != self._seen:
                    self._keys, self._seen = self._read(), now
                return self._keys
        except (OSError, ValueError) as error:
            raise SignatureRefused(
                f"The trusted keys cannot be read any more: {error}", _REMEDY
            ) from error

    def __repr__(self) -> str:
        return f"TrustedKeys({', '.join(map(str, self.files))})"

    def _read(self) -> tuple[TrustedKey, ...]:
        found = [key for file in self.files for key in _read_file(file)]
        by_id: dict[str, str] = {}
        for key in found:
            if by_id.setdefault(key.id, key.fingerprint) != key.fingerprint:
                raise ValueError(f"Two different keys are called {key.id!r}. Trust one of them.")
        # By what they are: a revoked key is not believed under another name either.
        gone = {key.fingerprint for key in found if {key.id, key.fingerprint} & self.revoked}
        kept = tuple(key for key in found if key.fingerprint not in gone)
        names = sorted(
            one for one in self.revoked if one not in by_id and not _FINGERPRINT.fullmatch(one)
        )
        if names and any(key.id == key.fingerprint for key in found):
            raise ValueError(
                f"The key {', '.join(names)} is revoked by its id, and keys in PEM files have "
                "none, so it may be one of those. Revoke it by its fingerprint, the sha256 of its "
                "public key in DER, or trust a key set (JWKS), which has ids."
            )
        if not kept:
            raise ValueError(
                f"No trusted key is left in {', '.join(map(str, self.files))}: "
                f"{'all are revoked' if found else 'there is none'}. {_REMEDY}"
            )
        return kept


def _plain(revoked: str) -> str:
    """An id as it stands in key sets, or a fingerprint in small letters, however it is written."""
    name = revoked.strip()
    digest = name.lower().removeprefix("sha256:").replace(":", "")
    return digest if _FINGERPRINT.fullmatch(digest) else name


Signers = TrustedKeys | KeyFile | Iterable[KeyFile]
"""What the settings of clients take: keys, or one file with such, or several."""


def trusted(keys: Signers) -> TrustedKeys:
    """Reads one file or several, where it is not done yet; raises as `TrustedKeys`."""
    if isinstance(keys, TrustedKeys):
        return keys
    if isinstance(keys, str | os.PathLike):
        return TrustedKeys(keys)
    return TrustedKeys(*keys)


def require_extra() -> None:
    """Makes sure that signatures can be checked.

    Raises:
        ImportError: they cannot; it names the extra.
    """
    try:
        import cryptography
        import joserfc
    except ImportError as error:
        raise ImportError(
            "Signatures are checked with packages that are not installed: "
            "pip install 'loragate[signed]'",
            name=error.name,
        ) from None
    del cryptography, joserfc


def _read_file(file: Path) -> list[TrustedKey]:
    """The keys of a file; raises OSError and ValueError."""
    with file.open("rb") as opened:
        data = opened.read(_LARGEST_BYTES + 1)
    if len(data) > _LARGEST_BYTES:
        raise ValueError(f"{file} is larger than any set of keys. {_REMEDY}")
    try:
        found = list(_from_pem(data) if data.lstrip().startswith(_PEM_BEGIN) else _from_set(data))
    except ValueError as error:
        raise ValueError(f"{file}: {error} {_REMEDY}") from None
    if len(found) > 1 and len({key.id for key in found}) != len(found):
        raise ValueError(f"{file} has a key twice. Leave one of them out.")
    return found


def _from_pem(data: bytes) -> Iterator[TrustedKey]:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    if b"PRIVATE KEY" in data:
        raise ValueError("It holds a private key, which belongs to the service alone.")
    *blocks, rest = data.split(_PEM_END)
    if not blocks or rest.strip():
        raise ValueError("It holds something else than public keys.")
    for block in blocks:
        try:
            key = load_pem_public_key(block.lstrip() + _PEM_END + b"\n")
        except (ValueError, UnsupportedAlgorithm):
            raise ValueError("It holds something that is no public key.") from None
        yield _checked("", key)


def _from_set(data: bytes) -> Iterator[TrustedKey]:
    from joserfc.errors import JoseError
    from joserfc.jwk import ECKey, OKPKey

    entries = strict_json(data).get("keys")
    if not isinstance(entries, list):
        raise ValueError("It is neither PEM nor a key set.")
    for entry in entries:
        if not isinstance(entry, dict) or (entry.get("kty"), entry.get("crv")) not in _KINDS:
            raise ValueError("It holds a key that is neither Ed25519 nor ECDSA P-256.")
        name = entry.get("kid")
        if "d" in entry:
            raise ValueError("It holds a private key, which belongs to the service alone.")
        if not isinstance(name, str) or not name or entry.get("use", "sig") != "sig":
            raise ValueError("It holds a key without a kid, or one that is not for signatures.")
        try:
            kind: Any = OKPKey if entry["kty"] == "OKP" else ECKey
            key = kind.import_key(entry).public_key
        except (JoseError, ValueError, TypeError):
            raise ValueError(f"Its key {name!r} is none.") from None
        yield _checked(name, key)


def _checked(name: str, key: Any) -> TrustedKey:
    """The key with its fingerprint.

    Raises:
        ValueError: it is of a kind that signs no verdicts.
    """
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    is_curve = isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1)
    if not (is_curve or isinstance(key, Ed25519PublicKey)):
        raise ValueError("It holds a key that is neither Ed25519 nor ECDSA P-256.")
    if not is_curve and _has_small_order(key):
        raise ValueError("It holds a key with which everybody can sign.")
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    fingerprint = hashlib.sha256(der).hexdigest()
    return TrustedKey(name or fingerprint, fingerprint, key)


def _has_small_order(key: Any) -> bool:
    """Whether a key of Ed25519 is a point of small order, whose signatures anybody can make."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    y = int.from_bytes(raw, "little") & ((1 << 255) - 1)  # without the sign of x
    return y % _P in _SMALL_ORDER
