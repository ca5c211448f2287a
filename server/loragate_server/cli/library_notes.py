"""What commands say on standard error of a library that they have changed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from loragate_server.concepts.concept import Role

_LACKING = (
    "note: the library lacks {} before a server can use it; neutral ones are made with "
    "`concepts bank`, or added with --role neutral."
)

_NEW = "`loragate-server calibrate --again FILE`, or with a folder of harmless adapters."

_ADDED = (
    "note: servers measure for their calibration what is new, where its harmless adapters were "
    "kept beside it. Where they were not, the new concept is uncalibrated, and where the kept file "
    f"is missing, all are, until you make a new one: {_NEW}"
)
_REMOVED = (
    "note: servers fit their calibration to what is left, by what was kept beside it. Where the "
    f"kept file is missing, nothing is calibrated until you make a new one: {_NEW}"
)
_NEUTRAL = (
    "note: a calibration does not follow another neutral bank: nothing is calibrated until you "
    f"make a new one: {_NEW}"
)

_NAMED = 3


def say_what_is_lacking(lacking: str) -> None:
    """What a library needs before it can decide anything, as `ConceptLibrary.lacking` has it."""
    noun = "concept" if lacking in ("1 forbidden", "1 neutral") else "concepts"
    typer.echo(_LACKING.format(f"{lacking} {noun}"), err=True)


def say_what_is_left(lacking: str, role: Role, *, removed: bool = False) -> None:
    """What is to be done after a change: what is lacking, else what becomes of calibrations."""
    if lacking:
        say_what_is_lacking(lacking)
    else:
        typer.echo(_NEUTRAL if role == "neutral" else _REMOVED if removed else _ADDED, err=True)


def say_what_was_passed_over(paths: Sequence[Path]) -> None:
    """Of files beside pictures that are of no kind that is read."""
    if paths:
        told = first_of([str(path) for path in paths])
        typer.echo(f"note: passed over, as they are no PNG, JPEG or WebP files: {told}", err=True)


def first_of(names: Sequence[str]) -> str:
    """The first few of them, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
