"""The setting `audit_devices`: who gets every line of the decision log beside log and database."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import Field, field_validator, model_validator

from loragate_server.config.section import Section

_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
_STREAMS = ("tcp", "tls")
_DATAGRAMS = ("udp", "unix")
_HEADER = re.compile(r"(?!.*-bin$)[a-z0-9._-]+", re.IGNORECASE | re.ASCII)
"""As gRPC carries them with a text; after `-bin` it wants bytes, and refuses the call."""


class SyslogTarget(Section):
    """A receiver of RFC 5424.

    Attributes:
        address: `tcp://host:port`, `tls://host:port`, `udp://host:port`, or `unix:/dev/log` for a
            socket that takes datagrams.
        ca_file: certificates (PEM) that the one of a `tls` receiver has to come from; those of the
            system when not set.
        cert_file: certificate (PEM) that the server shows a `tls` receiver.
        key_file: its private key.
        facility: number of RFC 5424; 13 is the one for audits.
        structured_data_id: under which number and digest of the line stand, `name@number`.
    """

    address: Annotated[str, Field(max_length=1024)]
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    facility: Annotated[int, Field(ge=0, le=23)] = 13
    structured_data_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,16}@[0-9.]{1,15}$")] = (
        "loragate@32473"
    )

    @field_validator("address")
    @classmethod
    def _usable(cls, value: str) -> str:
        parts = _split(value)
        whole = parts is not None and (
            (parts.scheme in (*_STREAMS, "udp") and parts.hostname and parts.port)
            or (parts.scheme == "unix" and parts.path.startswith("/") and not parts.netloc)
        )
        if not whole or not value.isprintable() or " " in value or "@" in value:
            raise ValueError(
                "it is no address like tls://siem.example.com:6514, tcp://10.0.0.7:601, "
                "udp://10.0.0.7:514 or unix:/dev/log"
            )
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file belong together")
        if self.transport != "tls" and (self.ca_file or self.cert_file):
            raise ValueError("ca_file, cert_file and key_file are for a tls:// address alone")
        return self

    @property
    def transport(self) -> str:
        """`tcp`, `tls`, `udp` or `unix`."""
        return urlsplit(self.address).scheme

    @property
    def plain(self) -> bool:
        """Whether what is sent can be read on a network."""
        parts = urlsplit(self.address)
        return parts.scheme in ("tcp", "udp") and parts.hostname not in _LOCAL


class OtlpTarget(Section):
    """A collector that takes OTLP logs over gRPC. Needs the extra `tracing`.

    Attributes:
        endpoint: `https` for one with a certificate.
        ca_file: certificates (PEM) that its own has to come from; those of the system when not set.
        headers_file: headers of each call, one `name: value` per line, such as `authorization`.
        service_name: `service.name` of what is sent.
    """

    endpoint: Annotated[str, Field(max_length=1024)]
    ca_file: Path | None = None
    headers_file: Path | None = None
    service_name: str = Field(default="loragate", min_length=1, max_length=255)

    @field_validator("endpoint")
    @classmethod
    def _usable(cls, value: str) -> str:
        parts = _split(value)
        known = parts is not None and parts.scheme in ("http", "https") and parts.hostname
        if parts is None or not known or parts.path not in ("", "/") or "@" in value:
            raise ValueError(f"{value!r} is not an address like https://otel-collector:4317")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.ca_file is not None and not self.secure:
            raise ValueError("ca_file is for an https:// endpoint alone")
        return self

    @property
    def secure(self) -> bool:
        """Whether TLS is spoken."""
        return urlsplit(self.endpoint).scheme == "https"

    @property
    def plain(self) -> bool:
        """Whether what is sent can be read on a network."""
        return not self.secure and urlsplit(self.endpoint).hostname not in _LOCAL


class FileTarget(Section):
    """A second file of JSON lines.

    Attributes:
        path: best on another volume than the decision log; nothing else may write to it.
    """

    path: Path


class AuditDevice(Section):
    """Who gets every line of the decision log; one of `syslog`, `otlp` and `file` is set.

    Attributes:
        name: in metrics, in the log, and for what it has taken; never given to another device.
        required: whether nothing is decided unless it has taken the line.
        timeout_s: longest time of an attempt, and of a decision to wait for a required device.
        history: whether a new device also gets what the log held before it was known.
        hmac_key_file: keys, one per line, 32 random bytes in base64; then what tells of people is
            given as HMAC under the first one.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    required: bool = False
    timeout_s: Annotated[float, Field(gt=0, le=60, allow_inf_nan=False)] = 3.0
    history: bool = False
    hmac_key_file: Path | None = None
    syslog: SyslogTarget | None = None
    otlp: OtlpTarget | None = None
    file: FileTarget | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        named = [one for one in (self.syslog, self.otlp, self.file) if one is not None]
        if len(named) != 1:
            raise ValueError(f"{self.name} has to name one of syslog, otlp and file")
        if self.required and self.syslog is not None and self.syslog.transport in _DATAGRAMS:
            raise ValueError(
                f"{self.name} cannot be required: nothing says whether a datagram "
                f"({self.syslog.transport}) arrived; use tcp or tls, or required: false"
            )
        return self

    @property
    def plain(self) -> bool:
        """Whether what is sent can be read on a network."""
        targets = (self.syslog, self.otlp)
        return any(one.plain for one in targets if one is not None)


AuditDevices = Annotated[tuple[AuditDevice, ...], Field(max_length=16)]


def require_distinct(devices: tuple[AuditDevice, ...]) -> None:
    """Refuses two devices that would take each other's place.

    Raises:
        ValueError: a name or a file is given twice.
    """
    names = [one.name for one in devices]
    if len(set(names)) != len(names):
        raise ValueError(f"audit_devices has a name twice: {', '.join(sorted(names))}")
    files = [one.file.path.expanduser().absolute() for one in devices if one.file is not None]
    if len(set(files)) != len(files):
        raise ValueError("audit_devices names a file twice; each device needs its own")


def read_headers(file: Path) -> tuple[tuple[str, str], ...]:
    """Headers of a file, one `name: value` per line; empty lines and those after `#` are left out.

    Raises:
        ValueError: a line is none.
        OSError: it cannot be read.
    """
    found = []
    for number, line in enumerate(file.read_text(encoding="ascii").splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, mark, value = line.partition(":")
        if not mark or not _HEADER.fullmatch(name.strip()) or not value.strip().isprintable():
            raise ValueError(f"line {number} of {file} is no header like `authorization: Bearer x`")
        found.append((name.strip().lower(), value.strip()))
    return tuple(found)


def _split(value: str) -> SplitResult | None:
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        return None
    return parts
