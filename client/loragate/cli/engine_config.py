"""What the engine of a scan is told: a configuration of its own, and a folder of its own."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

SERVER = "loragate_server"
INSTALL = "pip install 'loragate[scan]'"

_EMBEDDED = ("assets", "emoji_tiny", "pipeline")
_EMBEDDED_NAME = "emoji-tiny"
_STORE_BYTES = 4 * 2**30
"""Of uploaded files that the engine keeps: it has each at hand while it audits it, and no longer
needs it afterwards. Twice the largest file that it takes."""


class EngineError(OSError):
    """The engine cannot be started, or has ended; the text says why and what to do."""


@dataclass(frozen=True)
class EngineSettings:
    """How the engine is to audit.

    Attributes:
        state: folder for its record, its log and its socket.
        base: base model in diffusers layout; None for the embedded one.
        library: folder of concepts; None for the embedded one.
        policy: policy file; None for the one that ships.
        calibration: of base model and library; None for the one that ships, where it fits.
        device: "cpu", "cuda" or "cuda:N"; None for the CPU.
        threads: of torch. One, as more may add up the same numbers in another order.
        schemes: kinds of addresses that it may fetch from.
    """

    state: Path
    base: Path | None = None
    library: Path | None = None
    policy: Path | None = None
    calibration: Path | None = None
    device: str | None = None
    threads: int = 1
    schemes: frozenset[str] = frozenset()

    def at(self, state: Path) -> EngineSettings:
        """The same, with another state folder."""
        return replace(self, state=state)

    def require_there(self) -> None:
        """Refuses what is not there before anything is started.

        Raises:
            ValueError: names the option and the path.
        """
        for option, path in (("base", self.base), ("library", self.library)):
            if path is not None and not path.is_dir():
                raise ValueError(f"--{option}: {path} is no folder.")
        for option, path in (("policy", self.policy), ("calibration", self.calibration)):
            if path is not None and not path.is_file():
                raise ValueError(f"--{option}: {path} is no file.")


def package_folder() -> Path:
    """Where the engine is installed; it is not imported, which would take seconds.

    Raises:
        EngineError: it is not.
    """
    found = importlib.util.find_spec(SERVER)
    if found is None or found.origin is None:
        raise EngineError(
            "The engine is not installed here: a scan starts loragate-server for itself. "
            f"Install it with: {INSTALL}. Or ask a service: loragate gate-dir --target HOST:PORT"
        )
    return Path(found.origin).parent


def cache_home() -> Path:
    """The folder in which this user's programs keep what they can make again."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "loragate"


def default_state() -> Path:
    """Where scans keep their record, where nobody says otherwise."""
    return cache_home() / "scan"


def probe_cache() -> Path:
    """Where probes are kept; they depend on content alone, so a server's own may be shared."""
    return Path(os.environ.get("LORAGATE_CACHE_DIR") or cache_home() / "probes").absolute()


def make_state(folder: Path) -> Path:
    """Makes the folder for its owner alone.

    Who can write into it could put a record there that says ALLOW.

    Raises:
        EngineError: it is not the user's own, or cannot be made.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError as error:
        raise EngineError(
            f"--state {folder} cannot be made: {error.strerror}. Name another folder."
        ) from None
    strangers = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if status.st_uid != os.geteuid() or strangers:
        raise EngineError(
            f"--state {folder} belongs to another user, or others may write into it. "
            f"Name another folder, or mend it: chmod go-w {folder}"
        )
    return folder.absolute()


def config_of(settings: EngineSettings, socket: Path) -> dict[str, Any]:
    """The configuration of the server."""
    config: dict[str, Any] = {
        "listen": {"grpc": f"unix:{socket}", "http": "127.0.0.1:0"},
        "state_dir": str(settings.state),
        "cache_dir": str(probe_cache()),
        "threads": settings.threads,
        "drain_grace_s": 0,
        "intake": {
            "enabled_schemes": sorted(settings.schemes),
            "store_limit_bytes": _STORE_BYTES,
        },
        "log": {"level": "info", "format": "json"},
    }
    if settings.base or settings.calibration or settings.device:
        config["base_models"] = [_base_model(settings)]
    for name, path in (("library", settings.library), ("policy", settings.policy)):
        if path is not None:
            config[name] = str(path.absolute())
    return config


def _base_model(settings: EngineSettings) -> dict[str, str]:
    if settings.base is None:
        entry = {"name": _EMBEDDED_NAME, "folder": str(package_folder().joinpath(*_EMBEDDED))}
    else:
        folder = settings.base.absolute()
        name = re.sub(r"[^A-Za-z0-9._-]", "-", folder.name).lstrip("._-")[:128]
        entry = {"name": name or "base", "folder": str(folder)}
    if settings.calibration is not None:
        entry["calibration"] = str(settings.calibration.absolute())
    if settings.device is not None:
        entry["device"] = settings.device
    return entry


def write_config(settings: EngineSettings, socket: Path) -> Path:
    """Writes the configuration into the state folder; JSON is YAML."""
    file = settings.state / "engine.yaml"
    file.write_text(json.dumps(config_of(settings, socket), indent=2) + "\n", encoding="utf-8")
    return file


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """The environment of the engine: without settings of servers and clients that run here.

    A database or a policy that a variable names for a server would be used by the scan, too.
    """
    kept = {name: value for name, value in given.items() if not name.startswith("LORAGATE_")}
    return kept | {"OMP_WAIT_POLICY": given.get("OMP_WAIT_POLICY", "PASSIVE")}
