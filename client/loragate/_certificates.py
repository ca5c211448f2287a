"""Reads the certificate files of a connection, and says which of them is wrong.

gRPC takes whatever bytes it is given. It fails at the first call with words that name neither a
file nor a setting, and asks the service again and again.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from loragate._names import IN_PYTHON, Names

if TYPE_CHECKING:
    from loragate.config import TlsConfig

_ENCRYPTED = b"ENCRYPTED"


@dataclass(frozen=True)
class Certificates:
    """The contents of the files; None for those that are not set."""

    ca: bytes | None
    cert: bytes | None
    key: bytes | None = None


def read_certificates(tls: TlsConfig, names: Names = IN_PYTHON) -> Certificates:
    """The present content of the files, which has to be what it should be.

    Raises:
        OSError: a file cannot be read; the message names its setting.
        ValueError: a file holds no certificate or key, or the two do not belong together.
    """
    read = Certificates(
        _read(tls.ca_file, names.ca),
        _read(tls.cert_file, names.cert),
        _read(tls.key_file, names.key),
    )
    if tls.ca_file is not None:
        _require_certificate(tls.ca_file, names.ca)
    if tls.cert_file is not None and tls.key_file is not None:
        _require_certificate(tls.cert_file, names.cert)
        _require_key(tls.cert_file, tls.key_file, read.key or b"", names)
    return read


def _read(file: str | os.PathLike[str] | None, name: str) -> bytes | None:
    if file is None:
        return None
    try:
        return Path(file).read_bytes()
    except OSError as error:
        message = f"{name} cannot be read: {error.strerror}"
        raise OSError(error.errno, message, os.fspath(file)) from None


def _require_certificate(file: str | os.PathLike[str], name: str) -> None:
    import ssl

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except ssl.SSLError:
        raise ValueError(
            f"{name}: {os.fspath(file)} holds no certificate. Name a PEM file, which begins with "
            "-----BEGIN CERTIFICATE-----."
        ) from None


def _require_key(
    cert: str | os.PathLike[str], key: str | os.PathLike[str], content: bytes, names: Names
) -> None:
    import ssl

    try:
        # Without a password of ours, OpenSSL would ask for one at the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(cert, key, password=lambda: "")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ValueError(
                f"{names.key}: {os.fspath(key)} is not the key of {os.fspath(cert)} "
                f"({names.cert}). Name the key that this certificate was made with."
            ) from None
        if error.reason is None and _ENCRYPTED in content:
            raise ValueError(
                f"{names.key}: {os.fspath(key)} is encrypted, and nobody can be asked for its "
                "passphrase. Name a file with the key in the clear, which only you may read."
            ) from None
        if error.reason is None:
            raise ValueError(
                f"{names.key}: {os.fspath(key)} holds no private key. Name a PEM file, with a line "
                "such as -----BEGIN PRIVATE KEY-----."
            ) from None
        # Else OpenSSL is stricter than gRPC, which has the last word.
