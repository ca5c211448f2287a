"""Places and versions of local files, as a listing tells them without reading any."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from loragate_server.intake.beside import CONFIG_NAME


def place_of(path: str) -> tuple[str, str]:
    """A path as text, and what is wrong with it; "" where it can be written down as it is."""
    try:
        path.encode()
    except UnicodeEncodeError:
        shown = path.encode(errors="backslashreplace").decode()
        return shown, "Its name is not UTF-8: rename it."
    return path, ""


def state_of(path: str, beside: str = "") -> tuple[str, float]:
    """Version and last change (seconds since 1970) of a file; of none if it is not there.

    The time of the inode's change is a part of it: whoever can write a file can set the other
    time back, and a replacement of equal size would go unseen.

    Args:
        path: of the file.
        beside: version of the configuration beside it, which changes what the weights do.
    """
    try:
        status = os.lstat(path)
    except (OSError, ValueError):
        return "", 0.0
    version = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
    return (f"{version} beside {beside}" if beside else version), status.st_mtime


def state_beside(folder: str) -> str:
    """Version of the configuration in a folder; "" where there is none."""
    return state_of(str(Path(folder, CONFIG_NAME)))[0]


def state_within(folder: str) -> tuple[str, float] | None:
    """As `state_of`, of all that lies in a folder, for a place that names that of its weights.

    None where it is no folder, or one that cannot be read. What a file in it holds can change
    without a trace on the folder itself.
    """
    digest, last = hashlib.sha256(), 0.0
    try:
        if not stat.S_ISDIR(os.lstat(folder).st_mode):  # who reads the place follows no link either
            return None
        files = sorted(Path(folder).iterdir())
    except (OSError, ValueError):
        return None
    for file in files:
        version, changed_unix_s = state_of(str(file))
        digest.update(f"{os.fsencode(file.name).hex()} {version}\n".encode())
        last = max(last, changed_unix_s)
    return f"folder {digest.hexdigest()}", last
