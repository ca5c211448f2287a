"""The folder that the server writes, made before anything is loaded."""

from __future__ import annotations

import tempfile
from pathlib import Path

from loragate_server.config.schema import Config, StartError


def make_state_folder(config: Config) -> Path:
    """The state directory, made readable by its owner alone where it did not exist.

    Raises:
        StartError: it cannot be made or written.
    """
    folder = config.state_folder
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise StartError(
            f"state_dir {folder} cannot be written: {error.strerror}. "
            "Name another with --state-dir."
        ) from error
    return folder
