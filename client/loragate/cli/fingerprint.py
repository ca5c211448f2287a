"""Names all that an answer of a scan rests on beside the file: engine, model, library, policy."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import platform
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from loragate.cli.adapter_files import walk
from loragate.cli.engine_config import SERVER, EngineSettings

_PACKAGES = (SERVER, "loragate_kernels", "loragate")
"""Ours: looked at file by file, as one that is being worked on keeps its version."""

_DISTRIBUTIONS = (
    "diffusers",
    "numpy",
    "peft",
    "safetensors",
    "scipy",
    "tokenizers",
    "torch",
    "transformers",
    "triton",
)


def fingerprint(settings: EngineSettings) -> str:
    """A digest that changes whenever another answer might be given.

    Large folders are not read: a file counts by place, size and both of its times, of which the
    system sets the second and no program can set it back.

    Raises:
        OSError: something cannot be looked at.
    """
    facts: list[object] = [sys.version, platform.machine(), platform.node()]
    facts += [settings.threads, settings.device]
    facts += [_version(name) for name in _DISTRIBUTIONS]
    facts += [list(_files(folder)) for folder in map(_package, _PACKAGES)]
    for folder in (settings.base, settings.library):
        facts.append([str(folder), list(_files(folder)) if folder is not None else []])
    for file in (settings.policy, settings.calibration):
        facts.append(hashlib.sha256(file.read_bytes()).hexdigest() if file is not None else "")
    # What somebody may have put there for the engine of scans alone.
    for name in ("library", "calibrations"):
        facts.append(list(_files(settings.state / name)))
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def _package(name: str) -> Path:
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise FileNotFoundError(f"The package {name} is not installed.")
    return Path(found.origin).parent


def _files(folder: Path) -> Iterator[tuple[object, ...]]:
    """Each file of a folder, and what would change with it; nothing of one that is not there."""
    for path in sorted(walk(folder, follow_symlinks=True)) if folder.is_dir() else ():
        if path.suffix == ".pyc":
            continue
        status = path.stat()
        yield (
            path.relative_to(folder).as_posix(),
            status.st_ino,
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
        )
