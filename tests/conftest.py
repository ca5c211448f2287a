"""What tests of several rooms need of the machine."""

from __future__ import annotations

import contextlib
import gc
import logging
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from testkit.lanes import ByFile, begin_with_the_longest, try_the_same_properties_daily

pytest_plugins = ["testkit.hanging"]

try_the_same_properties_daily()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile | None:
    """How tests are given to processes, where they are given by file."""
    return ByFile(config, log) if config.getoption("dist") == "loadfile" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    begin_with_the_longest(items, Path(__file__).parent)


def pytest_collection_finish() -> None:
    """What was collected stays to the end: the collector of garbage need not look at it again."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # libraries look at the end for what was never collected


@pytest.fixture(autouse=True)
def _logs_as_they_were() -> Iterator[None]:
    """Takes back what a command in the test's own process set up for logs.

    Its handler writes to a stream that is gone after the test, and what later tests log would be
    an error on their standard error.
    """
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    if root.handlers != handlers or root.level != level:
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.captureWarnings(False)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system with room for 512 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def fill_disk() -> Callable[[Path], Path]:
    """Writes a file that takes all the room of a file system; returns it."""

    def fill(folder: Path) -> Path:
        ballast = folder / "ballast"
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * 4096)
        assert shutil.disk_usage(folder).free < 4096
        return ballast

    return fill
