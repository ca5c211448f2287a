"""What the subcommands of `loragate-server` have in common."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from loragate_server.config import Config
from loragate_server.config_sources import ConfigError, load_config

EXIT_USAGE = 2

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", envvar="LORAGATE_CONFIG", help="YAML file.", show_default=False),
]
StateOption = Annotated[
    Path | None,
    typer.Option(help="Folder for everything the server writes.", show_default=False),
]


def load(file: Path | None, flags: Mapping[str, Any] | None = None) -> Config:
    """The configuration, or the end of the command with what is wrong."""
    try:
        return load_config(file, flags)
    except ConfigError as error:
        fail(str(error), EXIT_USAGE)


def fail(message: str, code: int) -> NoReturn:
    """Ends the command with a message on standard error."""
    typer.echo(f"loragate-server: {message}", err=True)
    raise typer.Exit(code)
