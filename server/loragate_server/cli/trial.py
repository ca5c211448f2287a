"""What the commands share that let a base model draw and learn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loragate_server.cli.options import EXIT_FAILED, EXIT_FOUND_WRONG, EXIT_USAGE, fail, failures
from loragate_server.config.schema import BaseModelEntry, Config

if TYPE_CHECKING:
    from loragate_server.models.base import BaseModel
    from loragate_server.trials.school import Class, SchoolSettings

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

SubjectsOption = Annotated[
    Path | None,
    typer.Option(
        help="For training: a folder of pictures for each harmless subject. Default: the base "
        "model draws nouns that the library has not.",
        show_default=False,
    ),
]
PicturesOption = Annotated[
    Path | None,
    typer.Option(
        help="For training: further pictures of concepts, a folder for each, named by its id. "
        "Default: those of the library beyond the first 12 of a concept.",
        show_default=False,
    ),
]
StepsOption = Annotated[
    int,
    typer.Option("--steps", min=0, help="Of each training, about. Default: by the base model."),
]
RateOption = Annotated[
    float, typer.Option("--learning-rate", min=0.0, help="Default: by the base model.")
]
BatchOption = Annotated[
    int, typer.Option("--batch", min=0, help="Pictures a step. Default: by the base model.")
]
EstimateOption = Annotated[
    bool,
    typer.Option("--estimate", help="Train nothing: say how long it would take here, and end."),
]
PromptOption = Annotated[
    str,
    typer.Option("--prompt", help="With {} for the noun: how the base model is asked to draw."),
]
PROMPT = "a photo of a {}"


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


@dataclass(frozen=True)
class Choices:
    """The options of a command that trains, as they were given."""

    subjects: Path | None
    pictures: Path | None
    nouns: Path | None
    prompt: str
    draw_steps: int
    steps: int
    learning_rate: float
    batch: int

    def require_usable(self) -> None:
        """Ends the command for what shows without the base model, before that is loaded."""
        from loragate_server.trials.folders import subjects_in
        from loragate_server.trials.nouns import read_nouns

        with trial_failures():
            if self.prompt.count("{}") != 1:
                fail(
                    f"the prompt {self.prompt!r} has to hold {{}} once, for the noun",
                    EXIT_FOUND_WRONG,
                )
            if self.nouns is not None:
                read_nouns(self.nouns)
            for folder in (self.subjects, self.pictures):
                if folder is not None:
                    subjects_in(folder)

    def settings(self) -> SchoolSettings:
        """The same for the room that trains."""
        from loragate_server.trials.drawing import DrawingSettings
        from loragate_server.trials.school import SchoolSettings

        return SchoolSettings(
            subjects=self.subjects,
            pictures=self.pictures,
            nouns=self.nouns,
            steps=self.steps,
            learning_rate=self.learning_rate,
            batch=self.batch,
            drawing=DrawingSettings(self.draw_steps),
            manner=self.prompt,
        )


def say_what_is_learned(enrolled: Class) -> None:
    """What the operator should know before hours of training."""
    plan = enrolled.plan
    typer.echo(
        f"{enrolled.harmless} harmless and {enrolled.learned} learning adapters: about "
        f"{plan.steps} steps of {plan.batch} at {plan.learning_rate:g}, kept in {enrolled.folder}",
        err=True,
    )
    if enrolled.subjects is not None and len(enrolled.subjects.names) < enrolled.harmless:
        typer.echo(
            f"note: {enrolled.harmless} harmless adapters share {len(enrolled.subjects.names)} "
            "subjects; more of them, by --nouns or --subjects, would say more",
            err=True,
        )
    if enrolled.kept is None:
        return
    if missing := enrolled.kept.missing(enrolled.library):
        typer.echo(
            f"note: no other pictures than references of {', '.join(missing)}; nothing learns them",
            err=True,
        )
    if enrolled.kept.left_out:
        typer.echo(
            f"note: left out {len(enrolled.kept.left_out)} pictures that are references "
            f"themselves, such as {enrolled.kept.left_out[0]}",
            err=True,
        )


def say_estimate(enrolled: Class) -> None:
    """What all of it would take on this machine."""
    from loragate_server.trials.estimate import estimate

    found = estimate(enrolled)
    if found.pictures:
        typer.echo(f"{found.pictures} pictures to draw, {found.picture_s:.2f} s each")
    typer.echo(f"{found.steps} steps to train, {found.step_s:.3f} s each")
    typer.echo(
        f"about {found.total_s / 3600:.1f} h for that, if nothing of it is there yet, and "
        f"{found.disk_bytes / 1e9:.2f} GB of disk; gradients and audits come on top"
    )
    if found.memory_bytes:
        typer.echo(
            f"{found.memory_bytes / 2**30:.1f} GiB of GPU memory at most, without the concepts' "
            "directions, which lie there too"
        )
