"""`loragate-server intercept`: how requests to image servers are read."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from loragate_server.cli.group import Group
from loragate_server.cli.options import EXIT_FOUND_WRONG, ConfigOption, failures, load

intercept = Group(no_args_is_help=True, help="How requests to image servers are read.")


@intercept.callback()
def _group() -> None:
    """A group even with one command."""


@intercept.command()
def explain(
    file: Annotated[
        Path | None, typer.Argument(help="The request; standard input if not given.")
    ] = None,
    extractor: Annotated[str, typer.Option(help="Which one reads; the default if not given.")] = "",
    message: Annotated[
        Path | None,
        typer.Option(help="File with a message of the client, in the WebSocket that is opened."),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Says what a stored request would be read as, and why. Nothing is loaded or audited.

    The request is as HTTP/1.1 writes it: a line with method and path, headers, an empty line and
    the body. Exit code 1: it would be refused whatever its adapters are.

    [bold]Examples[/bold]

      loragate-server intercept explain --config loragate.yaml < request.http
      loragate-server intercept explain --extractor comfyui request.http
      loragate-server intercept explain --message start.json < opening.http
    """
    from loragate_server.app.explaining import explain as explained

    wanted = load(config)
    with failures():
        stored = sys.stdin.buffer.read() if file is None else file.read_bytes()
        said = None if message is None else message.read_bytes()
        found = explained(wanted, extractor, stored, said)
    for line in found.lines:
        typer.echo(line)
    if found.refused:
        raise typer.Exit(EXIT_FOUND_WRONG)
