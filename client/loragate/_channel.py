"""Opens channels: options, certificates, and what every call sends along."""

from __future__ import annotations

import threading
import time
from typing import Any

import grpc

from loragate._certificates import read_certificates
from loragate._names import IN_PYTHON, Names
from loragate._service_config import channel_config, config_without_retries
from loragate._trace import CallSpan
from loragate.config import ClientConfig, TlsConfig, check_token
from loragate.v1 import audit_pb2_grpc, concept_pb2_grpc

RECHECK_S = 10.0
"""How often certificate files are looked at for a change."""


def channel_options(tls: TlsConfig | None, *, own_retries: bool = False) -> list[tuple[str, Any]]:
    """Options of every channel: service config of the SDK, keepalive, limits.

    Args:
        tls: of the client.
        own_retries: the user says how often a call is made, so that gRPC must not make it again.
    """
    options: list[tuple[str, Any]] = [
        ("grpc.service_config", config_without_retries() if own_retries else channel_config()),
        # Retries are part of what the SDK promises; a DNS record must not change them.
        ("grpc.service_config_disable_resolution", 1),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        # A dead connection is found during a long audit, without pings while nothing is asked.
        ("grpc.keepalive_permit_without_calls", 0),
        # Whoever lets adapters in without the service must have looked for it himself: not long
        # ago, and not through a connection that another client of this process has given up.
        ("grpc.initial_reconnect_backoff_ms", 500),
        ("grpc.max_reconnect_backoff_ms", 500),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_receive_message_length", 4 * 1024 * 1024),
    ]
    if tls is not None and tls.server_name:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    return options


def credentials(tls: TlsConfig, names: Names = IN_PYTHON) -> Any:
    """Channel credentials from the present content of the files.

    Raises:
        OSError, ValueError: as `read_certificates`.
    """
    read = read_certificates(tls, names)
    return grpc.ssl_channel_credentials(
        root_certificates=read.ca, private_key=read.key, certificate_chain=read.cert
    )


def open_channel(config: ClientConfig, library: Any) -> Any:
    """Opens a channel of `grpc` or `grpc.aio`; nothing is sent before the first call."""
    options = channel_options(config.tls, own_retries=config.retry is not None)
    taken: dict[str, Any] = {"options": options}
    if library is not grpc and config.interceptors:
        taken["interceptors"] = config.interceptors
    if config.tls is None:
        channel = library.insecure_channel(config.target, **taken)
    else:
        secrets = credentials(config.tls, config.names)
        channel = library.secure_channel(config.target, secrets, **taken)
    if library is grpc and config.interceptors:
        return grpc.intercept_channel(channel, *config.interceptors)
    return channel


def call_metadata(
    config: ClientConfig, span: CallSpan, own: tuple[tuple[str, str], ...] = ()
) -> tuple[tuple[str, str], ...]:
    """What an attempt sends along: the token, as of now, the trace, and what the call adds."""
    token = config.token
    if callable(token):
        token = token()
        check_token(token, config.names.token)
    shown = (("authorization", f"Bearer {token}"),) if token else ()
    return (*shown, *span.metadata(), *own)


class CertificateWatch:
    """Says when the certificate files have changed, so that the channel has to be opened anew.

    gRPC reads a client's certificates once per channel and cannot be told of new ones.
    """

    def __init__(self, tls: TlsConfig | None) -> None:
        self._tls = tls
        self._seen: object = None
        self._next_look = time.monotonic() + RECHECK_S
        if tls is not None:
            try:
                self._seen = tls.fingerprint()
            except OSError:  # whoever reads the files says more about it
                self._seen = None

    def has_changed(self) -> bool:
        """Whether a file differs from what the last True, or the start, has seen."""
        if self._tls is None or time.monotonic() < self._next_look:
            return False
        self._next_look = time.monotonic() + RECHECK_S
        try:
            present = self._tls.fingerprint()
        except OSError:  # in the middle of being replaced: keep the channel that works
            return False
        if present == self._seen:
            return False
        self._seen = present
        return True

    def forget(self) -> None:
        """Takes the present files for changed at the next look, as nothing came of this one."""
        self._seen = None


class Connection:
    """A channel that opens with the first call and anew when certificates change. Thread-safe.

    Args:
        config: of the client.
        library: `grpc` or `grpc.aio`.
    """

    def __init__(self, config: ClientConfig, library: Any) -> None:
        self._config = config
        self._library = library
        self._lock = threading.Lock()
        self._channel: Any = None
        self._methods: dict[str, Any] = {}
        self._watch: CertificateWatch | None = None
        self._closed = False

    def method(self, name: str) -> Any:
        """The callable of a method ("Audit") on the present channel.

        Raises:
            RuntimeError: the client is closed.
            OSError: a certificate file cannot be read.
            ValueError: one holds no certificate or key, or they do not belong together.
        """
        with self._lock:
            if self._closed:
                raise RuntimeError("This client is closed.")
            if self._channel is None:
                self._open()
            elif self._watch is not None and self._watch.has_changed():
                self._renew(self._watch)
            return self._methods[name]

    def _renew(self, watch: CertificateWatch) -> None:
        """Opens the channel anew; calls in flight keep the one that they began on alive."""
        try:
            self._open()
        except (OSError, ValueError):  # some files are replaced, and others not yet
            watch.forget()

    def _open(self) -> None:
        self._watch = self._watch or CertificateWatch(self._config.tls)
        self._channel = open_channel(self._config, self._library)
        stubs = (
            audit_pb2_grpc.AuditServiceStub(self._channel),  # type: ignore[no-untyped-call]
            concept_pb2_grpc.ConceptServiceStub(self._channel),  # type: ignore[no-untyped-call]
        )
        self._methods = {name: call for stub in stubs for name, call in vars(stub).items()}

    def take_for_closing(self) -> Any:
        """Marks the connection closed; returns the channel to close, or None without one."""
        with self._lock:
            self._closed = True
            channel, self._channel, self._methods = self._channel, None, {}
            return channel
