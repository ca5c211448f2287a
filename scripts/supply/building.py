"""Builds sdists and wheels so that the same files give the same bytes, wherever and whenever.

Three things would differ: moments, which SOURCE_DATE_EPOCH sets in wheels and nothing in sdists;
rights of files, which follow the umask of whoever builds; and owners and order in sdists. What
compresses (zlib) and what builds (setuptools) are pinned by whoever wants the same bytes.
"""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterable
from pathlib import Path

from scripts.supply.source import EPOCH

FOLDERS = ("client", "kernels", "server")
UNWANTED = ("build", "*.egg-info", "__pycache__", "*.pyc", "*.partial")
"""What working leaves in the folders of distributions."""

_UMASK = 0o022
_FILE, _FOLDER = 0o644, 0o755


class BuildError(Exception):
    """Something could not be built; the text is what the build said."""


def build(
    tree: Path,
    dist: Path,
    epoch: int,
    folders: Iterable[str] = FOLDERS,
    python: str | Path = sys.executable,
) -> list[Path]:
    """Builds an sdist of each folder, and the wheel from that sdist.

    Args:
        tree: holds the folders; what building leaves in it is nobody's concern any more.
        dist: where sdists and wheels go.
        epoch: the only moment in them, in seconds since 1970.
        folders: of the distributions.
        python: has `build` and setuptools.

    Returns:
        The files, sorted by name.

    Raises:
        BuildError: one could not be built.
    """
    dist.mkdir(parents=True, exist_ok=True)
    for folder in folders:
        _with_plain_rights(tree / folder)
        command = [python, "-m", "build", "--no-isolation", "--outdir", dist, tree / folder]
        done = subprocess.run(  # noqa: S603
            [str(word) for word in command],
            env=_environment(epoch),
            umask=_UMASK,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        if done.returncode:
            raise BuildError(f"{folder}: {done.stdout[-2000:]}")
    for sdist in dist.glob("*.tar.gz"):
        pack_again(sdist, epoch)
    return sorted(dist.iterdir())


def copy_of(root: Path, place: Path, folders: Iterable[str] = FOLDERS) -> None:
    """Copies the folders of distributions out of a working tree, without what work left there."""
    for folder in folders:
        shutil.copytree(root / folder, place / folder, ignore=shutil.ignore_patterns(*UNWANTED))


def pack_again(sdist: Path, epoch: int) -> None:
    """Packs an sdist anew: the same files in order, of nobody, made at one moment."""
    with tarfile.open(sdist) as packed:
        members = sorted(packed.getmembers(), key=lambda member: member.name)
        partial = sdist.with_suffix(".partial")
        with (
            partial.open("wb") as raw,
            gzip.GzipFile("", "wb", 9, raw, mtime=epoch) as squeezed,
            tarfile.open(fileobj=squeezed, mode="w", format=tarfile.PAX_FORMAT) as again,
        ):
            for member in members:
                again.addfile(_plain(member, epoch), packed.extractfile(member))
    partial.replace(sdist)


def _plain(member: tarfile.TarInfo, epoch: int) -> tarfile.TarInfo:
    plain = tarfile.TarInfo(member.name)
    plain.type, plain.size, plain.mtime = member.type, member.size, epoch
    plain.mode = _FOLDER if member.isdir() else _FILE
    return plain


def _with_plain_rights(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(_FOLDER if path.is_dir() else _FILE)


def _environment(epoch: int) -> dict[str, str]:
    """Without settings of Python and pip from outside, and with one time and one order."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LORAGATE_", "PYTHON", "PIP_TARGET", "PIP_PREFIX"))
    }
    return kept | {EPOCH: str(epoch), "PYTHONHASHSEED": "0", "TZ": "UTC", "LC_ALL": "C.UTF-8"}
