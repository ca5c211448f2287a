"""Server certificates that are read again when their files change."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import grpc

from loragate_server.config.listen import Tls

_log = logging.getLogger(__name__)

Stamp = tuple[tuple[int, int, int], ...]


def server_credentials(tls: Tls) -> grpc.ServerCredentials:
    """Credentials for a port. Each new connection gets the certificate of that moment.

    Raises:
        ValueError: a file cannot be read, or holds no PEM block of the right kind.
    """
    follower = _Follower(tls)
    return grpc.dynamic_ssl_server_credentials(
        follower.first, follower.changed, require_client_authentication=tls.client_ca is not None
    )


class _Follower:
    """Watches the files. A renewal that is half written keeps the old certificate."""

    def __init__(self, tls: Tls) -> None:
        self._tls = tls
        self._lock = threading.Lock()
        self._stamp = self._look()
        self.first = self._read()

    def changed(self) -> grpc.ServerCertificateConfiguration | None:
        """The new configuration, or None where nothing changed. Called for every connection."""
        with self._lock:
            try:
                stamp = self._look()
                if stamp == self._stamp:
                    return None
                configuration = self._read()
            except ValueError as error:
                _log.error("the certificate was not renewed: %s", error)
                return None
            self._stamp = stamp
            _log.info("the certificate was renewed from %s", self._tls.cert)
            return configuration

    def _files(self) -> list[Path]:
        files = [self._tls.cert, self._tls.key]
        return files if self._tls.client_ca is None else [*files, self._tls.client_ca]

    def _look(self) -> Stamp:
        try:
            stats = [file.stat() for file in self._files()]
        except OSError as error:
            raise ValueError(f"{error.filename}: {error.strerror}") from error
        return tuple((each.st_mtime_ns, each.st_size, each.st_ino) for each in stats)

    def _read(self) -> grpc.ServerCertificateConfiguration:
        key, chain = _pem(self._tls.key, b"PRIVATE KEY"), _pem(self._tls.cert)
        authority = self._tls.client_ca
        return grpc.ssl_server_certificate_configuration(
            [(key, chain)], None if authority is None else _pem(authority)
        )


def _pem(file: Path, kind: bytes = b"CERTIFICATE") -> bytes:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror}") from error
    if kind + b"-----" not in content:
        raise ValueError(f"{file}: holds no PEM block {kind.decode()}")
    return content
