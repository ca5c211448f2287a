"""What the subcommands of `loragate-server` have in common."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from loragate_server.config.schema import Config, StartError
from loragate_server.config.sources import ConfigError, load_config
from loragate_server.errors import NoDecisionError
from loragate_server.out_of_memory import is_out_of_memory

EXIT_FOUND_WRONG = 1
EXIT_USAGE = 2
EXIT_FAILED = 3
EXIT_INTERRUPTED = 130
"""As a shell tells of a process that SIGINT has ended."""

NO_MEMORY = (
    "there is no memory left on the machine or its device. End what else uses it, choose a device "
    "with more, or load the base model in bfloat16. What was built already is kept."
)

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", envvar="LORAGATE_CONFIG", help="YAML file.", show_default=False),
]
StateOption = Annotated[
    Path | None,
    typer.Option(help="Folder for everything the server writes.", show_default=False),
]

LibraryOption = Annotated[
    Path | None,
    typer.Option("--library", help="Folder of the library. Default: the configured one."),
]


def load(file: Path | None, flags: Mapping[str, Any] | None = None) -> Config:
    """The configuration, or the end of the command with what is wrong."""
    try:
        return load_config(file, flags)
    except ConfigError as error:
        fail(str(error), EXIT_USAGE)


def warn(lines: Iterable[str]) -> None:
    """One line each on standard error, for what is hardly what was meant."""
    for line in lines:
        typer.echo(f"warning: {line}", err=True)


def fail(message: str, code: int) -> NoReturn:
    """Ends the command with a message on standard error."""
    typer.echo(f"loragate-server: {message}", err=True)
    raise typer.Exit(code)


def moment(option: str, text: str, last: bool) -> datetime | None:
    """A day or a moment as it was typed; `last`: a day ends the span with its end."""
    if not text:
        return None
    try:
        day = date.fromisoformat(text)
    except ValueError:
        try:
            found = datetime.fromisoformat(text)
        except ValueError:
            fail(f"{option} {text!r} is no day like 2026-11-01 and no moment", EXIT_USAGE)
        return found if found.tzinfo else found.replace(tzinfo=UTC)
    begin = datetime.combine(day, time(), UTC)
    return begin + timedelta(days=1) if last else begin


def make_folders(config: Config, results: Path | None = None, option: str = "") -> None:
    """Makes the state directory and a folder of results, or ends the command before long work.

    Args:
        config: names the state directory.
        results: the folder of results; None for none.
        option: by which it was named.
    """
    from loragate_server.app.state import make_state_folder

    with failures():
        make_state_folder(config)
    if results is None:
        return
    try:
        results.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=results):
            pass
    except OSError as error:
        fail(
            f"{option}: {results} cannot be written ({error.strerror}); name another place",
            EXIT_FAILED,
        )


@contextmanager
def failures() -> Iterator[None]:
    """Turns what a room refuses inside the block into a line and an exit code."""
    try:
        yield
    except (NoDecisionError, StartError) as error:
        fail(str(error), EXIT_FAILED)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        fail(NO_MEMORY, EXIT_FAILED)
    except OSError as error:
        what = f"{error.filename}: " if error.filename else ""
        fail(f"{what}{error.strerror or error}", EXIT_FAILED)
