"""Audit devices, made from the configuration."""

from __future__ import annotations

import importlib.util
import os
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from loragate_server.config.devices import AuditDevice, OtlpTarget, SyslogTarget, read_headers
from loragate_server.config.schema import Config, StartError
from loragate_server.record.devices.sealing import KeyFileError, read_keys
from loragate_server.record.rotation import files_of

if TYPE_CHECKING:
    from loragate_server.metrics.metrics import Metrics
    from loragate_server.record.devices.devices import Devices


def make_devices(config: Config, metrics: Metrics) -> Devices:
    """Who gets every line of the log; the recorder begins with them, and ends them.

    Raises:
        StartError: one cannot be used.
    """
    # Here, because a check of the configuration is done in well under a second.
    from loragate_server.record.devices.devices import Devices

    if found := list(device_problems(config)):
        raise StartError("\n".join(found))
    devices = Devices(config.audit_devices, config.device_folder, config.decision_log_file, metrics)
    metrics.follow_devices([one.name for one in config.audit_devices], devices.behind)
    return devices


def device_problems(config: Config) -> Iterator[str]:
    """One line for each thing that keeps a device from being used, without asking anybody."""
    for one in config.audit_devices:
        for line in (*_keys(one), *_file(config, one), *_syslog(one.syslog), *_otlp(one.otlp)):
            yield f"audit_devices: {one.name}: {line}"


def device_warnings(config: Config) -> Iterator[str]:
    """One line for each device with which a server starts, and that is hardly what was meant."""
    for one in config.audit_devices:
        if one.plain:
            yield (
                f"audit_devices: {one.name}: decisions can be read on the way to it; name a tls:// "
                "or https:// address"
            )


def _keys(device: AuditDevice) -> Iterator[str]:
    if device.hmac_key_file is None:
        return
    try:
        read_keys(device.hmac_key_file.expanduser())
    except KeyFileError as error:
        yield f"hmac_key_file: {error}"


def _file(config: Config, device: AuditDevice) -> Iterator[str]:
    if device.file is None:
        return
    path = device.file.path.expanduser().absolute()
    own = {one.resolve() for one in files_of(config.decision_log_file)}
    if path.resolve() in own:
        yield f"file.path: {path} is the decision log itself; name another file"
    elif path.resolve().parent == config.decision_log_file.resolve().parent and (
        path.name.startswith(config.decision_log_file.name)
    ):
        yield f"file.path: {path} would be taken for a file of the decision log; name it otherwise"
    elif not path.parent.is_dir():
        yield f"file.path: {path.parent} is no folder; make it, or mount its volume"
    elif not os.access(path if path.exists() else path.parent, os.W_OK):
        yield f"file.path: {path} cannot be written"


def _syslog(target: SyslogTarget | None) -> Iterator[str]:
    if target is None or target.transport != "tls":
        return
    try:
        context = ssl.create_default_context()
        if target.ca_file is not None:
            context.load_verify_locations(target.ca_file.expanduser())
        if target.cert_file is not None and target.key_file is not None:
            context.load_cert_chain(target.cert_file.expanduser(), target.key_file.expanduser())
    except OSError as error:  # of ssl too
        files = [one for one in (target.ca_file, target.cert_file, target.key_file) if one]
        yield f"syslog: {', '.join(map(str, files))}: {error.strerror or error}"


def _otlp(target: OtlpTarget | None) -> Iterator[str]:
    if target is None:
        return
    if not _installed("opentelemetry.exporter.otlp.proto.common"):
        yield "otlp needs the extra `tracing`: pip install 'loragate-server[tracing]'"
    if target.ca_file is not None:
        yield from _readable("otlp.ca_file", target.ca_file)
    if target.headers_file is not None:
        try:
            read_headers(target.headers_file.expanduser())
        except UnicodeDecodeError:
            yield f"otlp.headers_file: {target.headers_file} is no text"
        except ValueError as error:
            yield f"otlp.headers_file: {error}"
        except OSError as error:
            yield f"otlp.headers_file: {target.headers_file} cannot be read: {error.strerror}"


def _readable(what: str, file: Path) -> Iterator[str]:
    try:
        file.expanduser().read_bytes()
    except OSError as error:
        yield f"{what}: {file} cannot be read: {error.strerror}"


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False
