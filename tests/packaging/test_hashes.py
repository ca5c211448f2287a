"""The command that installs the packages of the image takes a file by its hash alone."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from testkit.waiting import at_most

ROOT = Path(__file__).parents[2]
[COMMAND] = re.findall(
    r"pip install (--no-deps --require-hashes --requirement) requirements-image.txt",
    (ROOT / "Containerfile").read_text(),
)
WHEEL = "tiny-1.0-py3-none-any.whl"


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """A folder with one wheel."""
    (folder := tmp_path / "index").mkdir()
    info = "tiny-1.0.dist-info"
    with zipfile.ZipFile(folder / WHEEL, "w") as wheel:
        wheel.writestr("tiny.py", "")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return folder


def install(index: Path, lock: str) -> subprocess.CompletedProcess[str]:
    """The image's command, with a folder as the package index and another target."""
    (file := index.parent / "requirements.txt").write_text(lock)
    here = ["--no-index", "--find-links", index, "--target", index.parent / "there"]
    return subprocess.run(
        [sys.executable, "-m", "pip", "install", *here, *COMMAND.split(), file],
        capture_output=True,
        text=True,
        check=False,
        timeout=at_most(60),
    )


def entry(*digests: str) -> str:
    return " \\\n    ".join(["tiny==1.0", *(f"--hash=sha256:{one}" for one in digests)]) + "\n"


def test_a_file_with_a_hash_of_the_lock_is_installed(index: Path) -> None:
    digest = hashlib.sha256((index / WHEEL).read_bytes()).hexdigest()
    done = install(index, entry("0" * 64, digest))
    assert done.returncode == 0, done.stderr
    assert (index.parent / "there" / "tiny.py").exists()


@pytest.mark.parametrize("digests", [("0" * 64,), ()])
def test_a_file_with_another_hash_or_with_none_is_refused(
    index: Path, digests: tuple[str, ...]
) -> None:
    done = install(index, entry(*digests))
    assert done.returncode != 0
    said = "DO NOT MATCH THE HASHES" if digests else "Hashes are required"
    assert said in done.stderr
    assert not (index.parent / "there").exists()
