"""From options of the command to the settings of the engine."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from loragate.cli.adapter_files import FoundFile
from loragate.cli.engine_config import EngineSettings, default_state


def engine_settings(options: argparse.Namespace, files: Sequence[FoundFile]) -> EngineSettings:
    """The settings for these files; what they name is there.

    Raises:
        ValueError: something is not; names the option and the path.
    """

    def path(name: str) -> Path | None:
        value = getattr(options, name)
        if value == "":
            raise ValueError(f"--{name} is empty. Give it a value, or leave it out.")
        return Path(value).expanduser() if value is not None else None

    settings = EngineSettings(
        state=path("state") or default_state(),
        base=path("base"),
        library=path("library"),
        policy=path("policy"),
        calibration=path("calibration"),
        device=options.device,
        threads=options.threads or 1,
        schemes=frozenset(one.uri.partition(":")[0].lower() for one in files if one.uri),
    )
    settings.require_there()
    return settings
