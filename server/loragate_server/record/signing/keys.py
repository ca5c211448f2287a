"""Opens the keys that verdicts are signed with. No message of here shows what a key file holds."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from loragate_server.config.signing import SigningKey, SigningSection

if TYPE_CHECKING:
    from securesystemslib.signer import Signer

PublicKey = Ed25519PublicKey | EllipticCurvePublicKey

KINDS = "an Ed25519 or ECDSA P-256 key"
OTHERS = stat.S_IRWXO | stat.S_IWGRP
"""Who may read a private key beside its owner: a group that only reads, as Kubernetes mounts."""

_MAKE = "`openssl genpkey -algorithm ed25519` makes one"


class KeyUnusableError(ValueError):
    """A key cannot sign; the text says which, why, and what to do."""


@dataclass(frozen=True)
class OpenKey:
    """A key that can sign.

    Attributes:
        signer: of securesystemslib; a device or service may sit behind it.
    """

    setting: SigningKey
    signer: Signer
    public_key: PublicKey

    @property
    def id(self) -> str:
        """Name of the key."""
        return self.setting.id

    def signs_at(self, now: datetime) -> bool:
        """Whether a moment is within its time."""
        return not (ended(self.setting, now) or _is_to_come(self.setting, now))


def ended(key: SigningKey, now: datetime) -> bool:
    """Whether a key no longer signs."""
    return key.not_after is not None and now >= key.not_after


def _is_to_come(key: SigningKey, now: datetime) -> bool:
    return key.not_before is not None and now < key.not_before


def require_time(section: SigningSection, now: datetime) -> None:
    """Makes sure that one of the keys signs now.

    Raises:
        KeyUnusableError: none does.
    """
    if any(not (ended(key, now) or _is_to_come(key, now)) for key in section.keys):
        return
    times = "; ".join(
        f"{key.id} from {key.not_before or 'the beginning'} until {key.not_after or 'ever'}"
        for key in section.keys
    )
    raise KeyUnusableError(
        f"signing.keys has no key for now, {now:%Y-%m-%d %H:%M} UTC ({times}); add a key, or set "
        "not_before and not_after"
    )


def open_keys(section: SigningSection, now: datetime) -> tuple[OpenKey, ...]:
    """Opens every key that signs now or later; one that has ended need not be there any more.

    Raises:
        KeyUnusableError: one cannot be used, or none signs now. It has one line per problem.
    """
    require_time(section, now)
    opened, problems = [], []
    for key in section.keys:
        if ended(key, now):
            continue
        try:
            opened.append(_open(key))
        except KeyUnusableError as error:
            problems.append(str(error))
    if problems:
        raise KeyUnusableError("\n".join(problems))
    return tuple(opened)


def public_keys(section: SigningSection) -> dict[str, PublicKey]:
    """The public half of every key by its id.

    Also of those that have ended: what they signed holds until it runs out.

    Raises:
        KeyUnusableError: one cannot be read.
    """
    found: dict[str, PublicKey] = {}
    for key in section.keys:
        try:
            if key.public_key is not None:
                found[key.id] = read_public(key.public_key)
            elif key.file is not None:
                found[key.id] = _read_private(key.file.expanduser()).public_key()
        except KeyUnusableError as error:
            raise KeyUnusableError(f"signing.keys: {key.id}: {error}") from None
    return found


def warnings(section: SigningSection, now: datetime) -> Iterator[str]:
    """What is odd about the keys, though verdicts can be signed."""
    for key in section.keys:
        if ended(key, now):
            yield (
                f"signing.keys: {key.id} signs no more since {key.not_after}; take it out once the "
                "last verdict that it has signed has run out"
            )


def read_public(path: Path) -> PublicKey:
    """The public key in a PEM file.

    Raises:
        KeyUnusableError: it cannot be read, or is of no kind that signs verdicts.
    """
    try:
        key = load_pem_public_key(path.expanduser().read_bytes())
    except OSError as error:
        raise KeyUnusableError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, UnsupportedAlgorithm):
        raise KeyUnusableError(f"{path} holds no public key in PEM") from None
    if not _fits(key):
        raise KeyUnusableError(f"{path} is not {KINDS}")
    assert isinstance(key, Ed25519PublicKey | EllipticCurvePublicKey)  # noqa: S101 (by `_fits`)
    return key


def _open(key: SigningKey) -> OpenKey:
    name = f"signing.keys: {key.id}"
    try:
        if key.file is not None:
            return _from_file(key, key.file.expanduser())
        return _from_uri(key)
    except KeyUnusableError as error:
        raise KeyUnusableError(f"{name}: {error}") from None
    except ImportError as error:
        raise KeyUnusableError(
            f"{name} needs a package that is not installed ({error.name}): "
            "pip install 'loragate-server[signing]'"
        ) from None


def _from_file(key: SigningKey, path: Path) -> OpenKey:
    from securesystemslib.signer import CryptoSigner, SSlibKey

    private = _read_private(path)
    public = private.public_key()
    return OpenKey(key, CryptoSigner(private, SSlibKey.from_crypto(public, key.id)), public)


def _from_uri(key: SigningKey) -> OpenKey:
    from securesystemslib.exceptions import Error, UnsupportedLibraryError
    from securesystemslib.signer import Signer, SSlibKey

    assert key.public_key is not None  # noqa: S101 (the section demands it beside a uri)
    public = read_public(key.public_key)
    pin = None if key.pin_file is None else _read_pin(key.pin_file.expanduser())
    scheme = key.uri.partition(":")[0]

    def tell_secret(_: str) -> str:
        if pin is None:
            raise KeyUnusableError("the device asks for a PIN; name its file in pin_file")
        return pin

    try:
        signer = Signer.from_priv_key_uri(
            key.uri, SSlibKey.from_crypto(public, key.id), tell_secret
        )
    except UnsupportedLibraryError as error:
        raise KeyUnusableError(
            f"keys of the kind {scheme}: need another package: {error}; securesystemslib has an "
            "extra for each, such as securesystemslib[hsm]"
        ) from None
    except (Error, ValueError, OSError) as error:
        raise KeyUnusableError(f"the key cannot be opened by its uri: {error}") from None
    return OpenKey(key, signer, public)


def _read_private(path: Path) -> Ed25519PrivateKey | EllipticCurvePrivateKey:
    """Raises KeyUnusableError for what others may read, too: a signature would say nothing."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read()
    except OSError as error:
        raise KeyUnusableError(f"{path} cannot be read: {error.strerror}") from None
    if mode & OTHERS:
        raise KeyUnusableError(
            f"{path} is a private key that others may read or change (mode "
            f"{stat.S_IMODE(mode):04o}); chmod 0400 it, or 0440 for a group"
        )
    try:
        key = load_pem_private_key(data, password=None)
    except TypeError:
        raise KeyUnusableError(
            f"{path} is encrypted; store the key without a password where only the server can "
            "read it, or use a key by uri"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise KeyUnusableError(f"{path} holds no private key in PEM; {_MAKE}") from None
    if not _fits(key.public_key()):
        raise KeyUnusableError(f"{path} is not {KINDS}; {_MAKE}")
    assert isinstance(key, Ed25519PrivateKey | EllipticCurvePrivateKey)  # noqa: S101 (by `_fits`)
    return key


def _fits(key: object) -> bool:
    if isinstance(key, Ed25519PublicKey):
        return True
    return isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1)


def _read_pin(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise KeyUnusableError(f"pin_file {path} cannot be read as text") from None
