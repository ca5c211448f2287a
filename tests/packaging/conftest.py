"""A repository of its own, out of which something is built and attested."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from scripts.supply.building import UNWANTED

ROOT = Path(__file__).parents[2]
NEEDED = ("scripts", "constraints.txt", "requirements-image.txt", "requirements-image.json")
WHO = {
    f"GIT_{role}_{field}": value
    for role in ("AUTHOR", "COMMITTER")
    for field, value in (
        ("NAME", "somebody"),
        ("EMAIL", "somebody@example.com"),
        ("DATE", "2026-01-02T03:04:05Z"),
    )
}


def git(root: Path, *words: str) -> str:
    """Runs git as somebody, without the settings of this machine."""
    environment = {
        **os.environ,
        **WHO,
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
    }
    done = subprocess.run(
        ["git", "-C", root, *words], env=environment, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture(scope="session")
def make_repository(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Iterable[str]], Path]:
    """Makes a repository of one commit with some of the distributions and all that builds them."""

    def make(folders: Iterable[str]) -> Path:
        root = tmp_path_factory.mktemp("place") / "repository"
        root.mkdir()
        for name in (*NEEDED, *folders):
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, root / name, ignore=shutil.ignore_patterns(*UNWANTED))
            else:
                shutil.copy(source, root / name)
        (root / ".gitignore").write_text("build/\n__pycache__/\n*.egg-info/\n")
        git(root, "init", "--quiet")
        git(root, "add", "--all")
        git(root, "commit", "--quiet", "--message", "Begin")
        return root

    return make
