"""Reads requirements-image.txt: what the image installs, for the platform that is described."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from scripts.lock_image import LOCK, OLDEST_PYTHON, entries

_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")

TARGET = {
    "implementation_name": "cpython",
    "implementation_version": f"{OLDEST_PYTHON}.0",
    "os_name": "posix",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "platform_release": "",
    "platform_system": "Linux",
    "platform_version": "",
    "python_full_version": f"{OLDEST_PYTHON}.0",
    "python_version": OLDEST_PYTHON,
    "sys_platform": "linux",
}
"""The platform that is described, whichever describes it. A lock is for all, a bill for one."""


@dataclass(frozen=True)
class Locked:
    """One package of the lock.

    Attributes:
        name: as package indexes compare names.
        version: the only one that is installed.
        hashes: lower-case hexadecimal sha256 of each file that may be, sorted.
    """

    name: str
    version: str
    hashes: tuple[str, ...]


def read_lock(file: Path = LOCK) -> dict[str, Locked]:
    """What is installed on the platform that is described, by name.

    Raises:
        ValueError: an entry is not pinned, has no hash, or stands there twice for this platform.
        OSError: the file cannot be read.
    """
    found: dict[str, Locked] = {}
    for entry in entries(file.read_text()):
        requirement = Requirement(entry.partition("\\")[0].strip())
        if not holds(requirement.marker):
            continue
        name, pins = canonicalize_name(requirement.name), list(requirement.specifier)
        hashes = tuple(sorted(_HASH.findall(entry)))
        if len(pins) != 1 or pins[0].operator != "==" or not hashes:
            raise ValueError(f"{file.name}: {requirement.name} has not one version and hashes")
        if name in found:
            raise ValueError(f"{file.name}: {name} stands there twice for {OLDEST_PYTHON}")
        found[name] = Locked(name, pins[0].version, hashes)
    return found


def holds(marker: Marker | None, extra: str = "") -> bool:
    """Whether a requirement is one on the platform that is described, for this extra."""
    return marker is None or marker.evaluate({**TARGET, "extra": extra})
