"""What `loragate-server calibrate` looks at before its long work, and not after it."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from loragate_server.cli.adapters import learned_before
from loragate_server.cli.options import EXIT_FAILED, EXIT_FOUND_WRONG, EXIT_USAGE, fail

if TYPE_CHECKING:
    from loragate_server.concepts.library import ConceptLibrary

TRAINING = (
    "subjects",
    "pictures",
    "nouns",
    "prompt",
    "draw_steps",
    "steps",
    "learning_rate",
    "batch",
)
"""Options that say how adapters are trained."""


def require_training_for_its_options(context: typer.Context) -> None:
    """Ends the command where options about training were given and nothing is trained."""
    given = [
        f"--{name.replace('_', '-')}"
        for name in TRAINING
        if (source := context.get_parameter_source(name)) and source.name == "COMMANDLINE"
    ]
    if given:
        verb = "is" if len(given) == 1 else "are"
        fail(
            f"{', '.join(given)} {verb} about what is trained; give --train, or a number to "
            "--learned",
            EXIT_USAGE,
        )


def require_concepts(labels: Mapping[Path, Sequence[str]], library: ConceptLibrary) -> None:
    """Ends the command before the long work, and not after it."""
    known = {concept.concept_id for concept in library.forbidden}
    for file, concepts in labels.items():
        for concept in concepts:
            if concept not in known:
                fail(
                    f"{file}: {concept!r} is no forbidden concept of the library", EXIT_FOUND_WRONG
                )


def require_what_again_needs(again: Path, keep: bool, learned: str) -> None:
    """Ends the command where a calibration made again would be less than the one of before."""
    if not keep:
        fail("--again lives of what was kept; leave --no-keep out", EXIT_USAGE)
    if not learned and (known := learned_before(again)):
        fail(
            f"{again} knew {known} adapters that learned a concept, which are not kept: give them "
            "by --learned, or --learned 0 to do without what they taught",
            EXIT_USAGE,
        )


def require_enough(there: int, train: int) -> None:
    """Ends the command where so many could not make a calibration, before the long work."""
    from loragate_server.audit.calibration import MINIMUM_HARMLESS

    lacking = MINIMUM_HARMLESS - there
    if lacking > train:
        remedy = f"train {lacking} or more" if train else f"give or --train {lacking} more"
        fail(
            f"{there + train} harmless adapters are too few; {remedy}, and 99 in all for a "
            "false-block rate of 1 % that rests on counting alone",
            EXIT_USAGE if train else EXIT_FOUND_WRONG,
        )


def require_drawable(plot: Path, labelled: bool) -> None:
    """Ends the command where the plot could not be drawn, before the long work and not after it."""
    if not labelled:
        fail("--plot draws what is missed, so it needs --learned with some adapters", EXIT_USAGE)
    from loragate_server.audit.calibration import CalibrationError
    from loragate_server.audit.rates import SUFFIXES, require_drawing

    if plot.suffix not in SUFFIXES:
        fail(f"--plot {plot} has to end with {' or '.join(SUFFIXES)}", EXIT_USAGE)
    if not plot.parent.is_dir():
        fail(f"--plot {plot}: there is no folder {plot.parent}", EXIT_USAGE)
    try:
        require_drawing()
    except CalibrationError as error:
        fail(str(error), EXIT_FAILED)


def labels_in(file: Path) -> dict[Path, list[str]]:
    """Adapter files with the concepts that they learned, or the end of the command."""
    found: dict[Path, list[str]] = {}
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            for number, row in enumerate(csv.reader(lines), 1):
                if not row:  # an empty line
                    continue
                if len(row) != 2:
                    fail(f"{file}:{number}: write `file.safetensors,concept-id`", EXIT_FOUND_WRONG)
                found.setdefault(file.parent / row[0].strip(), []).append(row[1].strip())
    except OSError as error:
        fail(f"{file} cannot be read: {error.strerror}", EXIT_FAILED)
    except (UnicodeDecodeError, csv.Error):
        fail(f"{file} is no CSV in UTF-8; write `file.safetensors,concept-id`", EXIT_FOUND_WRONG)
    if not found:
        fail(f"{file} names no adapter; write `file.safetensors,concept-id`", EXIT_FOUND_WRONG)
    return found
