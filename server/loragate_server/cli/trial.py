"""What the commands share that let a base model draw and learn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loragate_server.cli.options import EXIT_FAILED, EXIT_FOUND_WRONG, EXIT_USAGE, fail, failures
from loragate_server.config.schema import BaseModelEntry, Config

if TYPE_CHECKING:
    from loragate_server.models.base import BaseModel

BaseModelOption = Annotated[
    str, typer.Option("--base-model", help="Name; the default one when empty.")
]
NounsOption = Annotated[
    Path | None,
    typer.Option(
        help="Nouns to draw, one a line, most ordinary first. Default: a list of 427 that ships.",
        show_default=False,
    ),
]
DrawStepsOption = Annotated[
    int, typer.Option(min=1, max=1000, help="Steps of the sampler for each picture.")
]
GuidanceOption = Annotated[
    float | None,
    typer.Option(help="Guidance. Default: the pipeline's own.", show_default=False),
]


def entry_of(config: Config, name: str) -> BaseModelEntry:
    """The configured base model of this name, or the end of the command."""
    names = [entry.name for entry in config.base_models]
    if name and name not in names:
        fail(f"no base model {name!r} is configured; there are {', '.join(names)}", EXIT_FAILED)
    return next(entry for entry in config.base_models if entry.name == (name or names[0]))


def load_entry(entry: BaseModelEntry) -> BaseModel:
    """Loads it, without what libraries say meanwhile."""
    from loragate_server.app.startup import load_base, quiet_libraries

    quiet_libraries()
    return load_base(entry)


@contextmanager
def trial_failures() -> Iterator[None]:
    """As `failures`, for what goes wrong in a trial too."""
    from loragate_server.trials.errors import TrialError

    with failures():
        try:
            yield
        except TrialError as error:
            fail(str(error), EXIT_FOUND_WRONG)


def require_one(**given: object) -> None:
    """Ends the command unless just one of the options was given."""
    named = [name for name, value in given.items() if value]
    if len(named) != 1:
        wanted = " or ".join(f"--{name.rstrip('_')}" for name in given)
        fail(f"give {wanted}" + (", not both" if named else ""), EXIT_USAGE)
