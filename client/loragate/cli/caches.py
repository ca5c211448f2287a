"""`loragate cache`: what scans keep on this machine, and how to be rid of it."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from loragate.cli import scan_settings
from loragate.cli.engine import alone
from loragate.cli.engine_config import cache_home, default_state, make_state, probe_cache
from loragate.cli.exit_code import ExitCode
from loragate.cli.kept import NAME
from loragate.cli.table import printable

_RECORD = (
    NAME,
    "decisions.jsonl",
    "loragate.sqlite3",
    "loragate.sqlite3-shm",
    "loragate.sqlite3-wal",
    "engine.log",
    "store",
    "engine.yaml",  # last, as it tells whose the others are
)
"""What a scan and its engine make in a state folder; nothing else there is touched."""

_OURS = (NAME, "engine.yaml")
"""What only scans make: a server keeps its decisions under the same names as they do."""

_KIB = 1024


def cache(options: argparse.Namespace) -> ExitCode:
    """Shows or clears what scans keep."""
    options.settings = None
    scan_settings.apply(options, Path.cwd())
    state = Path(options.state) if options.state else default_state()
    if options.action == "show":
        return _tell(state)
    return _clear(state, probes=options.probes)


def described(state: Path) -> Iterator[tuple[str, str]]:
    """What is kept, where, and how large it is."""
    yield ("record", f"{state}, {_size(state)}")
    yield ("probes", f"{probe_cache()}, {_size(probe_cache())}")


def _size(folder: Path) -> str:
    if not folder.is_dir():
        return "not made yet"
    size = float(sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir()))
    for unit in ("bytes", "KiB", "MiB"):
        if size < _KIB:
            return f"{size:.0f} {unit}"
        size /= _KIB
    return f"{size:.1f} GiB"


def _clear(state: Path, *, probes: bool) -> ExitCode:
    """Removes the record of scans: their answers, decisions and copies of files.

    Raises:
        ValueError: probes are somewhere where other things may be, or the record is no scan's.
    """
    own = probe_cache() == (cache_home() / "probes").absolute()
    if probes and not own:
        raise ValueError(
            f"LORAGATE_CACHE_DIR names {probe_cache()}, which others may use. Remove it yourself."
        )
    if _is_of_scans(state):
        with alone(make_state(state), lambda said: print(f"loragate: {said}", file=sys.stderr)):
            for name in _RECORD:
                _remove(state / name)
    if probes:
        _remove(probe_cache())
    return _tell(state)


def _is_of_scans(state: Path) -> bool:
    """Whether there is a record of scans to remove.

    Raises:
        ValueError: there is one of somebody else.
    """
    if any((state / name).exists() for name in _OURS):
        return True
    if any((state / name).exists() for name in _RECORD):
        raise ValueError(
            f"{state} is no record of scans; it may be the state directory of a server, whose "
            "decisions are not to be lost. Name the folder of scans by --state, or remove it "
            "yourself."
        )
    return False


def _tell(state: Path) -> ExitCode:
    for what, found in described(state):
        print(printable(f"{what:8}{found}"))
    return ExitCode.ALLOW


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
