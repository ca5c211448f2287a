"""The settings file of `loragate scan`: `.loragate.toml`, here or in a folder above."""

from __future__ import annotations

import argparse
import difflib
import os
import stat
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loragate.cli import values
from loragate.cli.parts import FAIL_ON, FORMATS
from loragate.reference import LOADERS

NAME = ".loragate.toml"
TABLE = "scan"


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("has to be a text in quotes, and not an empty one")
    return value


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(one, str) and one for one in value):
        raise ValueError('has to be a list of texts, such as ["*.safetensors"]')
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("has to be true or false")
    return value


def _one_of(*known: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in known:
            raise ValueError(f"has to be one of {', '.join(known)}")
        return str(value)

    return read


def _number(how: Callable[[str], Any]) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError("has to be a number")
        try:
            return how(str(value))
        except argparse.ArgumentTypeError as error:
            raise ValueError(str(error)) from None

    return read


PATHS = ("base", "library", "policy", "calibration", "state")
"""Settings that are paths; relative ones begin at the folder of the file."""

SETTINGS: Mapping[str, Callable[[Any], Any]] = {
    **dict.fromkeys(PATHS, _text),
    "include": _texts,
    "exclude": _texts,
    "format": _one_of(*FORMATS),
    "fail-on": _one_of(*FAIL_ON),
    "loader": _one_of(*LOADERS),
    "strength": _number(values.strength),
    "text-encoder-strength": _number(values.strength),
    "device": _text,
    "threads": _number(values.count),
    "timeout": _number(values.seconds),
    "follow-symlinks": _flag,
    "allow-empty": _flag,
}
"""Every setting, by the name of its option, and how its value is read."""


DECISIVE = (*PATHS, "include", "exclude", "fail-on", "loader", "strength", "text-encoder-strength")
"""Settings by which a file may be let through that would not be else."""


@dataclass(frozen=True)
class Used:
    """The settings file that was read, and which of its settings hold.

    Attributes:
        found: nobody has named it.
    """

    file: Path
    names: tuple[str, ...]
    found: bool

    @property
    def decisive(self) -> tuple[str, ...]:
        """What of a file that nobody named may let files through."""
        return tuple(name for name in self.names if self.found and name in DECISIVE)


def apply(options: argparse.Namespace, start: Path) -> Used | None:
    """Fills in what was not given on the command line.

    Args:
        options: changed in place; None stands for what was not given.
        start: folder in which, and above which, a file is looked for.

    Returns:
        The file that was read, if any.

    Raises:
        ValueError: it cannot be read, or says what cannot be; names the file and the setting.
    """
    file = Path(options.settings) if options.settings else None
    if file is None and not options.no_settings:
        file = find(start)
    if file is None:
        return None
    names = []
    for name, value in read(file).items():
        attribute = name.replace("-", "_")
        if getattr(options, attribute) is None:
            setattr(options, attribute, value)
            names.append(name)
    return Used(file, tuple(names), found=not options.settings)


def find(start: Path) -> Path | None:
    """The nearest settings file in a folder or above it.

    Raises:
        ValueError: it belongs to somebody else. In a folder for all, such as /tmp, anybody could
            tell scans below it to use a policy that allows everything.
    """
    for folder in (start.absolute(), *start.absolute().parents):
        file = folder / NAME
        try:
            status = file.stat()
        except OSError:
            continue
        if not stat.S_ISREG(status.st_mode):
            continue
        if status.st_uid not in (os.geteuid(), 0):
            raise ValueError(
                f"{file} belongs to another user and is not read unasked. Name it with --settings, "
                "or leave it out with --no-settings."
            )
        return file
    return None


def read(file: Path) -> dict[str, Any]:
    """The settings in a file, by the names of their options.

    Raises:
        ValueError: see `apply`.
    """
    try:
        content = tomllib.loads(file.read_bytes().decode("utf-8"))
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}.") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{file} is no TOML: {error}.") from None
    if stray := sorted(content.keys() - {TABLE}):
        raise ValueError(f"{file}: there is no [{stray[0]}]; settings stand in [{TABLE}].")
    table = content.get(TABLE, {})
    if not isinstance(table, dict):
        raise ValueError(f"{file}: [{TABLE}] has to be a table.")
    return {name: _value(file, name, value) for name, value in table.items()}


def _value(file: Path, name: str, value: Any) -> Any:
    if name not in SETTINGS:
        meant = difflib.get_close_matches(name, SETTINGS, n=1)
        hint = f"did you mean {meant[0]}?" if meant else f"there are: {', '.join(SETTINGS)}."
        raise ValueError(f"{file}: {name} is no setting; {hint}")
    try:
        known = SETTINGS[name](value)
    except ValueError as error:
        raise ValueError(f"{file}: {name} {error}.") from None
    if name in PATHS:
        return str(file.absolute().parent / Path(known).expanduser())
    return known
