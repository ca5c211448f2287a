"""Blocked files, encrypted: they can be shown to whoever must see them, and loaded by nobody.

A sealed file begins with a mark and 16 random bytes. From these and the operator's key HKDF-SHA256
makes a key for this file alone. Then come chunks of 1 MiB, each sealed by AES-256-GCM; its nonce
is the number of the chunk and whether it is the last one, so that none can be left out, moved or
cut off. The mark, the random bytes and the digest of the file are bound to every chunk.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from loragate_server.files import whole_file
from loragate_server.intake.uploads import Upload

_MARK = b"loragate-sealed-1\n"
_SALT_BYTES = 16
_TAG_BYTES = 16
_CHUNK_BYTES = 1 << 20
KEY_BYTES = 32


class QuarantineError(Exception):
    """A file cannot be sealed or opened; the text says why."""


def read_key(file: Path) -> bytes:
    """The operator's key: 32 bytes in base64.

    Raises:
        QuarantineError: the file cannot be read, or holds no such key.
    """
    try:
        key = base64.b64decode(file.read_bytes().strip(), validate=True)
    except (OSError, binascii.Error) as error:
        raise QuarantineError(f"{file} cannot be read as a key: {error}") from error
    if len(key) != KEY_BYTES:
        raise QuarantineError(
            f"{file} holds {len(key)} bytes and has to hold {KEY_BYTES} in base64; make a key with "
            "`openssl rand -base64 32`"
        )
    return key


def sealed_path(folder: Path, sha256: str) -> Path:
    """Where the sealed file with this digest lies or would lie."""
    return folder / f"{sha256}.sealed"


def seal(upload: Upload, folder: Path, key: bytes) -> Path:
    """Writes a stored file to the quarantine and reads it again; the stored file stays.

    Raises:
        QuarantineError: the stored file is not what it is called, or what was written is not.
        OSError: it cannot be read or written.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    target = sealed_path(folder, upload.sha256)
    digest = hashlib.sha256()
    descriptor = os.open(upload.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as plain, whole_file(target) as partial:
        with open(partial, "xb", opener=_private) as sealed:
            salt = secrets.token_bytes(_SALT_BYTES)
            sealed.write(_MARK + salt)
            cipher, bound = _cipher(key, salt, upload.sha256)
            for number, chunk, last in _chunks(plain, _CHUNK_BYTES):
                digest.update(chunk)
                sealed.write(cipher.encrypt(_nonce(number, last), chunk, bound))
        if digest.hexdigest() != upload.sha256:
            raise QuarantineError(f"{upload.path} is not the file that it is called")
        for _ in opened(partial, upload.sha256, key):
            pass
    return target


def opened(file: Path, sha256: str, key: bytes) -> Iterator[bytes]:
    """The bytes of a sealed file, chunk by chunk. Believe them when the last one has come.

    Raises:
        QuarantineError: another key, another digest, or not the bytes that were sealed.
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with file.open("rb") as sealed:
        head = sealed.read(len(_MARK) + _SALT_BYTES)
        if len(head) != len(_MARK) + _SALT_BYTES or not head.startswith(_MARK):
            raise QuarantineError(f"{file} is no sealed file")
        cipher, bound = _cipher(key, head[len(_MARK) :], sha256)
        for number, chunk, last in _chunks(sealed, _CHUNK_BYTES + _TAG_BYTES):
            try:
                plain = cipher.decrypt(_nonce(number, last), chunk, bound)
            except InvalidTag as error:
                raise QuarantineError(
                    f"{file} was sealed with another key or for another digest, or was changed"
                ) from error
            digest.update(plain)
            yield plain
    if digest.hexdigest() != sha256:
        raise QuarantineError(f"{file} does not hold the file {sha256}")


def _cipher(key: bytes, salt: bytes, sha256: str) -> tuple[AESGCM, bytes]:
    derived = HKDF(SHA256(), KEY_BYTES, salt, b"loragate quarantine").derive(key)
    return AESGCM(derived), _MARK + salt + sha256.encode("ascii")


def _nonce(number: int, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])


def _chunks(file: BinaryIO, size: int) -> Iterator[tuple[int, bytes, bool]]:
    """Number, bytes, and whether they are the last; at least one chunk, if an empty one."""
    number, chunk = 0, file.read(size)
    while True:
        following = file.read(size)
        yield number, chunk, not following
        if not following:
            return
        number, chunk = number + 1, following


def _private(name: str, flags: int) -> int:
    return os.open(name, flags, 0o600)
