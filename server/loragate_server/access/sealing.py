"""Secrets from files, and cookies that only replicas with the same secret can make or read."""

from __future__ import annotations

import json
import math
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from aiohttp import web
from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

MIN_SECRET_BYTES: Final = 32
MAX_COOKIE_BYTES: Final = 3800  # browsers drop cookies of more than 4096 with their attributes
_LEAST_DIFFERENT_BYTES: Final = 8

Clock = Callable[[], float]
"""Gives the time in seconds since 1970."""


def read_secret(path: Path, setting: str) -> bytes:
    """What the file holds, without the line end that editors leave.

    Raises:
        ValueError: it cannot be read or is empty.
    """
    try:
        secret = path.read_bytes().strip(b"\r\n")
    except OSError as error:
        raise ValueError(
            f"{setting} {path} cannot be read ({error.strerror}); it has to be a file that holds "
            "nothing but the secret, readable by the server"
        ) from error
    if not secret:
        raise ValueError(f"{setting} {path} is empty; it has to hold the secret")
    return secret


def read_session_secret(path: Path) -> bytes:
    """The secret that cookies are sealed with.

    Raises:
        ValueError: it cannot be read, is too short, or is plainly not random.
    """
    setting = "console.session_secret_file"
    remedy = "make one with `openssl rand -base64 48`; all replicas share it"
    secret = read_secret(path, setting)
    if len(secret) < MIN_SECRET_BYTES:
        raise ValueError(
            f"{setting} {path} holds {len(secret)} bytes and needs at least {MIN_SECRET_BYTES}; "
            f"{remedy}"
        )
    if len(set(secret)) < _LEAST_DIFFERENT_BYTES:
        raise ValueError(
            f"{setting} {path} repeats a few characters, so it can be guessed; {remedy}"
        )
    return secret


def derive_key(secret: bytes, purpose: str) -> bytes:
    """A key of 32 bytes for one purpose; keys for different purposes say nothing of each other."""
    label = f"loragate console {purpose}".encode()
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=label).derive(secret)


class Seal:
    """Turns small records into opaque text with a time in it, and back.

    The purpose names the shape of the record, so that another version's record does not open.
    """

    def __init__(self, secret: bytes, purpose: str, clock: Clock) -> None:
        self._fernet = Fernet(urlsafe_b64encode(derive_key(secret, purpose)))
        self._clock = clock

    def close(self, record: Mapping[str, Any]) -> str:
        """Seals the record, with the present time."""
        plain = json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode()
        return self._fernet.encrypt_at_time(plain, int(self._clock())).decode()

    def open(self, sealed: str, life_s: float) -> dict[str, Any] | None:
        """The record; None if it is older than `life_s` or was not sealed with this key."""
        try:
            plain = self._fernet.decrypt_at_time(
                sealed.encode(), math.ceil(life_s), int(self._clock())
            )
        except (InvalidToken, UnicodeEncodeError):
            return None
        record: dict[str, Any] = json.loads(plain)
        return record


@dataclass(frozen=True)
class CookieJar:
    """Sets cookies that scripts cannot read and other sites cannot make browsers send in forms.

    Attributes:
        secure: over HTTPS browsers then also refuse them from neighbouring hosts.
    """

    secure: bool

    def name(self, plain: str) -> str:
        """The cookie's name."""
        return f"__Host-{plain}" if self.secure else plain

    def set(self, response: web.StreamResponse, plain: str, value: str, life_s: float) -> None:
        """Sets the cookie on the answer."""
        response.set_cookie(
            self.name(plain),
            value,
            max_age=math.ceil(life_s),
            path="/",
            secure=self.secure,
            httponly=True,
            samesite="Lax",
        )

    def clear(self, response: web.StreamResponse, plain: str) -> None:
        """Makes the browser forget the cookie."""
        response.del_cookie(
            self.name(plain), path="/", secure=self.secure, httponly=True, samesite="Lax"
        )
