"""`NoteSigner`: the Ed25519 keys for checkpoints, from the same places as those for verdicts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from loragate_server.config.checkpoints import CheckpointsSection
from loragate_server.config.signing import SigningKey, SigningSection
from loragate_server.record.signing.keys import (
    KeyUnusableError,
    OpenKey,
    open_keys,
    public_keys,
    read_public,
)
from loragate_server.record.tree.note import (
    Note,
    NoteSignature,
    log_signature,
    witness_signature,
)


def _now() -> datetime:
    return datetime.now(UTC)


class NoteSigner:
    """Signs notes with every key that is within its time. Thread-safe as its keys are."""

    def __init__(
        self, where: str, keys: tuple[SigningKey, ...], now: Callable[[], datetime] = _now
    ) -> None:
        """Opens the keys and takes those that are Ed25519.

        Args:
            where: name of the setting, for errors.
            keys: some may be of another kind.
            now: the clock.

        Raises:
            KeyUnusableError: one cannot be opened, or none is Ed25519.
        """
        self._now = now
        self._keys: list[tuple[OpenKey, Ed25519PublicKey]] = []
        try:
            opened = open_keys(SigningSection(keys=keys), now()) if keys else ()
        except KeyUnusableError as error:
            lines = (line.removeprefix("signing.keys: ") for line in str(error).splitlines())
            raise KeyUnusableError("\n".join(f"{where}: {line}" for line in lines)) from None
        for one in opened:
            if isinstance(one.public_key, Ed25519PublicKey):
                self._keys.append((one, one.public_key))
        if not self._keys:
            raise KeyUnusableError(
                f"{where}: there is no Ed25519 key to sign with; "
                "`openssl genpkey -algorithm ed25519` makes one"
            )

    @property
    def keys(self) -> tuple[Ed25519PublicKey, ...]:
        """The public halves."""
        return tuple(public for _, public in self._keys)

    def signed(self, text: str, name: str) -> Note:
        """A text as a note of a log with this name.

        Raises:
            KeyUnusableError: a key failed, or none is within its time.
        """
        made = (log_signature(text, name, public, _sign(one)) for one, public in self._in_time())
        return Note(text, tuple(made))

    def seen(self, text: str, name: str) -> tuple[NoteSignature, ...]:
        """The signatures of a witness with this name. Raises as `signed`."""
        now = self._now()
        return tuple(
            witness_signature(text, name, public, _sign(one), now)
            for one, public in self._in_time()
        )

    def _in_time(self) -> list[tuple[OpenKey, Ed25519PublicKey]]:
        now = self._now()
        if not (found := [one for one in self._keys if one[0].signs_at(now)]):
            raise KeyUnusableError("no Ed25519 key for checkpoints is within its time")
        return found


def _sign(key: OpenKey) -> Callable[[bytes], bytes]:
    def sign(message: bytes) -> bytes:
        try:
            signature = key.signer.sign(message)
            key.signer.public_key.verify_signature(signature, message)
        except Exception as error:  # what a device or a service may raise is its own affair
            raise KeyUnusableError(f"the key {key.id!r} did not sign: {error}") from error
        return bytes.fromhex(signature.signature)

    return sign


def read_note_key(file: Path) -> Ed25519PublicKey:
    """A public key in PEM, for notes.

    Raises:
        KeyUnusableError: the file holds no Ed25519 key.
    """
    key = read_public(file)
    if not isinstance(key, Ed25519PublicKey):
        raise KeyUnusableError(f"{file} is no Ed25519 key, which checkpoints are signed with")
    return key


def log_keys(section: CheckpointsSection, signing: SigningSection) -> list[Ed25519PublicKey]:
    """The public halves of the keys that sign, or signed, checkpoints by a configuration.

    Raises:
        KeyUnusableError: one cannot be read.
    """
    wanted = SigningSection(keys=(section.key,)) if section.key else signing
    return [key for key in public_keys(wanted).values() if isinstance(key, Ed25519PublicKey)]
