"""What the settings of a client are called where they were set, so that messages can name them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Names:
    """One name for each setting that a connection may fail by.

    The defaults are for whoever calls the SDK, and for those who set it up by the environment; the
    command puts its own options there, or the variable that it has read.
    """

    target: str = "target or LORAGATE_TARGET"
    tls: str = "tls"
    ca: str = "ca_file of tls or LORAGATE_TLS_CA"
    cert: str = "cert_file of tls or LORAGATE_TLS_CERT"
    key: str = "key_file of tls or LORAGATE_TLS_KEY"
    server_name: str = "server_name of tls"
    token: str = "token or LORAGATE_TOKEN_FILE"  # noqa: S105 - a name
    timeout: str = "timeout or LORAGATE_TIMEOUT_S"


IN_PYTHON = Names()
