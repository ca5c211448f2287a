"""What a manifest names lies on the disk before the manifest does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from loragate_server.concepts.concept import Concept
from loragate_server.files import whole_folder
from tests.server.console.pages.shelf import make_library, picture


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what was synced or renamed, in order; `/` ends those of folders."""
    done: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def named(fd: int) -> None:
        path = Path(f"/proc/self/fd/{fd}").readlink()
        done.append(path.name + ("/" if path.is_dir() else ""))
        fsync(fd)

    def renamed(path: Path, target: Path) -> Path:
        done.append(f"-> {target.name}")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", named)
    monkeypatch.setattr(Path, "replace", renamed)
    return done


def test_pictures_and_their_folders_are_durable_before_the_list_that_names_them(
    tmp_path: Path, synced: list[str]
) -> None:
    library = make_library(tmp_path / "library")
    synced.clear()
    library.add(Concept("fox", "Fox", "brand", "low", "forbidden"), [picture("red")])
    told = ["partial" if name.endswith(".partial") else name for name in synced]
    assert told == [
        *("partial", "-> 0.png", "fox/", "pictures/", "library/"),
        *("partial", "-> library.yaml", "library/"),
    ]


def test_a_folder_that_is_made_whole_is_durable_with_all_that_is_in_it(
    tmp_path: Path, synced: list[str]
) -> None:
    with whole_folder(tmp_path / "copy") as partial:
        (partial / "inner").mkdir(parents=True)
        (partial / "inner" / "file").write_text("x")
        (partial / "empty").touch()
    assert {"file", "empty", "inner/", f"{tmp_path.name}/"} <= set(synced)
    assert synced[-1] == f"{tmp_path.name}/"
    assert sorted(path.name for path in (tmp_path / "copy").rglob("*")) == [
        "empty",
        "file",
        "inner",
    ]
