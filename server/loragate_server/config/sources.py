"""Reads a `Config` from a YAML file, the environment and command-line flags.

Flags win over the environment (`LORAGATE_LISTEN__GRPC`), the environment over the file, the file
over the defaults. Sections are merged key by key; lists are replaced as a whole.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from loragate_server.config.schema import Config

ENVIRONMENT_PREFIX = "LORAGATE_"


class ConfigError(Exception):
    """The configuration cannot be used. The text has one line per problem."""


class _Variables(BaseSettings, Config):
    """Tells `EnvSettingsSource` which variables there are. Never made."""

    model_config = SettingsConfigDict(env_prefix=ENVIRONMENT_PREFIX, env_nested_delimiter="__")


def load_config(file: Path | None = None, flags: Mapping[str, Any] | None = None) -> Config:
    """The configuration that `file`, the environment and `flags` make together.

    Args:
        file: YAML; None for none.
        flags: nested like the file; None stands for a flag that was not given.

    Raises:
        ConfigError: unreadable file, YAML or schema error; names place and key of each problem.
    """
    written = {} if file is None else _read_yaml(file)
    layers = {"file": written, "environment": _environment(), "flags": _given(flags or {})}
    merged: dict[str, Any] = {}
    for layer in layers.values():
        merged = _merge(merged, layer)
    try:
        return Config(**merged)
    except ValidationError as error:
        raise ConfigError(
            "\n".join(
                _describe(item, layers, file)
                for item in error.errors(include_url=False, include_context=False)
            )
        ) from error


def ignored_environment() -> dict[str, str]:
    """Variables that look like settings and are none, to be mentioned when the server starts.

    They are not refused: Kubernetes itself sets `LORAGATE_SERVICE_HOST` and the like, and the
    client has variables of its own.

    Returns:
        Each with the variable that may have been meant, or "".
    """
    known = {f"{ENVIRONMENT_PREFIX}{name}".upper() for name in (*Config.model_fields, "config")}
    every = _variables()
    strays = sorted(
        name
        for name in os.environ
        if name.upper().startswith(ENVIRONMENT_PREFIX)
        and name.upper().partition("__")[0] not in known
    )
    return {name: closest(name.upper(), every) for name in strays}


def _variables() -> list[str]:
    """Every variable of a setting, and of a setting in a section."""
    names = []
    for name, field in Config.model_fields.items():
        names.append(f"{ENVIRONMENT_PREFIX}{name}".upper())
        variable = names[-1]
        for section in (field.annotation, *get_args(field.annotation)):  # of `Section | None` too
            if isinstance(section, type) and issubclass(section, BaseModel):
                names += [f"{variable}__{inner}".upper() for inner in section.model_fields]
    return names


def closest(name: str, known: Iterable[str]) -> str:
    """The one of `known` that was likely meant, or "".

    What all of them begin with tells none from another, and would make short names alike.
    """
    own = {one.removeprefix(ENVIRONMENT_PREFIX): one for one in known}
    wanted = name.removeprefix(ENVIRONMENT_PREFIX)
    guesses = difflib.get_close_matches(wanted, list(own), n=1, cutoff=0.8)
    return own[guesses[0]] if guesses else ""


def _environment() -> dict[str, Any]:
    strays = [name for name in ignored_environment() if "__" in name]
    if strays:
        known = ", ".join(Config.model_fields)
        raise ConfigError(f"environment: {', '.join(strays)}: no such setting. There are: {known}")
    try:
        return EnvSettingsSource(_Variables)()
    except SettingsError as error:
        raise ConfigError(_not_json(error)) from error


def _not_json(error: SettingsError) -> str:
    """Which variables it may be; the error names the section alone, in words of a library."""
    found = re.search(r'field "(\w+)"', str(error))
    variable = f"{ENVIRONMENT_PREFIX}{found[1]}".upper() if found else ""
    named = [one for one in sorted(os.environ) if one.upper().partition("__")[0] == variable]
    return (
        f"environment: {', '.join(named) or error}: lists and sections are written as JSON, such "
        """as LORAGATE_INTAKE__ROOTS='["/srv/loras"]'"""
    )


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        text = file.expanduser().read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: cannot be read: it is no text in UTF-8") from error
    try:
        content = YAML(typ="rt", pure=True).load(text)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        problem = str(error.problem or error).splitlines()[0]
        raise ConfigError(f"{file}:{line}: {problem}") from error
    except YAMLError as error:
        raise ConfigError(f"{file}: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{file}:1: has to be a mapping of settings")
    return content


def _given(flags: Mapping[str, Any]) -> dict[str, Any]:
    """`flags` without what was not given."""
    nested = {
        name: _given(value) if isinstance(value, Mapping) else value
        for name, value in flags.items()
        if value is not None
    }
    return {name: value for name, value in nested.items() if value != {}}


def _merge(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """`low` overlaid with `high`, key by key."""
    merged = dict(low)
    for name, value in high.items():
        below = merged.get(name)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        merged[name] = _merge(below, value) if both else value  # type: ignore[arg-type]
    return merged


def _describe(item: ErrorDetails, layers: Mapping[str, Any], file: Path | None) -> str:
    """One problem as `place: key: what is wrong`, the place being where the value came from."""
    path = item["loc"]
    key = ".".join(str(part) for part in path)
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        message = "no such setting"
    line = _line(layers["file"], path)
    if path and _contains(layers["flags"], path):
        place = "flags"
    elif path and _contains(layers["environment"], path):
        place = "environment"
    else:
        place = f"{file}:{line}" if file is not None else "configuration"
    return f"{place}: {key}: {message}" if key else f"{place}: {message}"


def _contains(layer: Any, path: tuple[int | str, ...]) -> bool:
    """Whether `layer` set the value at `path`, or a whole above it."""
    for part in path:
        if isinstance(layer, Mapping):
            if part not in layer:
                return False
            layer = layer[part]
        elif isinstance(layer, list) and isinstance(part, int) and part < len(layer):
            layer = layer[part]
        else:
            return True
    return True


def _line(content: Any, path: tuple[int | str, ...]) -> int:
    """The line, from 1, of the deepest part of `path` that `content` holds."""
    line = 1
    for part in path:
        marks = getattr(content, "lc", None)
        try:
            line = (marks.item(part) if isinstance(content, list) else marks.key(part))[0] + 1  # type: ignore[union-attr]
            content = content[part]
        except (AttributeError, KeyError, IndexError, TypeError):
            break
    return line
