"""What is wrong with the files and folders that a configuration names, or with their places."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from loragate_server.config.schema import Config
from loragate_server.errors import NoDecisionError


def roots(config: Config) -> Iterator[str]:
    """Roots that cannot be named as paths."""
    try:
        _ = config.intake.folders
    except RuntimeError as error:
        yield f"intake.roots: {error}"


def folders(config: Config) -> Iterator[str]:
    """Folders that the server writes and cannot."""
    for key, folder in (("state_dir", config.state_folder), ("cache_dir", config.probe_cache)):
        there = next(one for one in (folder, *folder.parents) if one.exists())
        if not there.is_dir():
            yield f"{key} {folder}: {there} is no folder"
        elif not os.access(there, os.W_OK | os.X_OK):
            yield f"{key} {folder} cannot be written; name another"


def log(config: Config) -> Iterator[str]:
    """A decision log without a folder that the server would not make."""
    folder = config.decision_log_file.parent
    if _is_missing(config, folder):
        yield f"decision_log {config.decision_log_file}: there is no folder {folder}; make it"


def database(config: Config) -> Iterator[str]:
    """A database URL that cannot be used, or a file without a folder."""
    if not config.database_url:
        return
    from loragate_server.record.connect import parse_url, sqlite_path

    try:
        file = sqlite_path(parse_url(config.database))
    except NoDecisionError as error:
        yield f"database_url: {error.message}"
        return
    if file is not None and _is_missing(config, file.absolute().parent):
        yield f"database_url {file}: there is no folder {file.parent}; make it"


def _is_missing(config: Config, folder: Path) -> bool:
    """Whether a folder is not there, and is none of those that the server makes."""
    state = config.state_folder
    return folder not in (state, *state.parents) and not folder.is_dir()


def odd_roots(config: Config) -> Iterator[str]:
    """Roots with which a server starts, and below which no path will be found."""
    try:
        roots = zip(config.intake.roots, config.intake.folders, strict=True)
    except RuntimeError:  # told as a problem
        return
    for named, folder in roots:
        if not folder.is_absolute():
            yield (
                f"intake.roots: {named} is relative, and means {folder.absolute()} where the "
                "server is started from here; name the whole path"
            )
        elif not folder.is_dir():
            yield f"intake.roots: {named} is no folder; no path below it can be read"
