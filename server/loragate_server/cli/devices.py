"""`loragate-server log hmac`: what a value looks like to audit devices that get it sealed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from loragate_server.cli.options import (
    EXIT_FAILED,
    EXIT_USAGE,
    ConfigOption,
    StateOption,
    fail,
    load,
)
from loragate_server.config.schema import Config

KeyFileOption = Annotated[
    Path | None,
    typer.Option("--key-file", help="File of keys. Default: that of the device."),
]


def hmac_of(
    value: Annotated[
        str,
        typer.Argument(help="Of a caller, a file, a reviewer; - reads it from standard input."),
    ],
    device: Annotated[
        str, typer.Option(help="Of the configuration; may be left out where one alone has keys.")
    ] = "",
    key_file: KeyFileOption = None,
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Prints the HMAC of a value, to look for it in what an audit device has got.

    One line for each key of the file: the first one is in force, the others were before it.

    [bold]Example[/bold]

      echo alice@example.com | loragate-server log hmac - --device siem
    """
    from loragate_server.record.devices.sealing import KeyFileError, read_keys, sealed_value

    if value == "-":
        value = sys.stdin.read().removesuffix("\n")
    if not value:
        fail("an empty value is never sealed; name one", EXIT_USAGE)
    file = key_file or _key_file(load(config, {"state_dir": state_dir}), device)
    try:
        keys = read_keys(file.expanduser())
    except KeyFileError as error:
        fail(str(error), EXIT_FAILED)
    for key in keys:
        typer.echo(sealed_value(key, value))


def _key_file(config: Config, device: str) -> Path:
    found = {one.name: one.hmac_key_file for one in config.audit_devices if one.hmac_key_file}
    chosen = next(iter(found)) if not device and len(found) == 1 else device
    if chosen not in found:
        known = ", ".join(sorted(found)) or "none"
        fail(f"name a device with an hmac_key_file by --device (there are: {known})", EXIT_USAGE)
    return found[chosen]
