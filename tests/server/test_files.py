"""Files written whole or not at all, by several writers that know nothing of each other."""

from __future__ import annotations

import multiprocessing
import os
import stat
import time
from pathlib import Path

import pytest

from loragate_server.files import files_below, whole_file, whole_folder

TIMES = 150


def write(path: Path, letter: str, number: int) -> None:
    """A process of a container: it sees the same number as the others."""
    os.getpid = lambda: number
    for _ in range(TIMES):
        with whole_file(path) as partial:
            partial.write_text(letter * 5000)


def test_containers_with_one_process_number_do_not_disturb_each_other(tmp_path: Path) -> None:
    path = tmp_path / "shared"
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=write, args=(path, letter, 7)) for letter in "abc"]
    for one in writers:
        one.start()
    seen = set()
    while any(one.is_alive() for one in writers):
        if path.exists():
            seen.add(path.read_text())
    for one in writers:
        one.join()
    assert [one.exitcode for one in writers] == [0, 0, 0]
    assert seen <= {letter * 5000 for letter in "abc"}
    assert [*tmp_path.iterdir()] == [path]


def test_what_fails_half_way_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before")

    def fail() -> None:
        with whole_file(path) as partial:
            partial.write_text("half")
            raise ValueError("gone")

    with pytest.raises(ValueError, match="gone"):
        fail()
    assert path.read_text() == "before"
    assert [*tmp_path.iterdir()] == [path]


def test_what_a_crash_left_behind_is_removed_and_what_others_write_now_is_not(
    tmp_path: Path,
) -> None:
    path = tmp_path / "file[1]"
    stale, fresh = (tmp_path / f".file[1].{name}.partial" for name in ("stale", "fresh"))
    unlike = tmp_path / ".file1.stale.partial"
    for one in (stale, fresh, unlike):
        one.write_text("x")
    for one in (stale, unlike):
        os.utime(one, (time.time() - 9999, time.time() - 9999))
    with whole_file(path) as partial:
        partial.write_text("y")
    assert {*tmp_path.iterdir()} == {path, fresh, unlike}


def test_a_written_file_has_the_rights_that_any_new_file_has(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    with whole_file(tmp_path / "whole") as partial:
        partial.touch()
    rights = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "whole")]
    assert rights[0] == rights[1]


def test_of_two_folders_the_first_stays_and_nothing_of_the_second(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    with whole_folder(path) as first, whole_folder(path) as second:
        for number, partial in enumerate((first, second)):
            partial.mkdir()
            (partial / f"{number}").touch()
    assert [*tmp_path.iterdir()] == [path]
    assert [one.name for one in path.iterdir()] == ["1"]  # the inner block ended first


def test_a_folder_that_cannot_take_its_place_is_an_error_and_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.touch()

    def make() -> None:
        with whole_folder(path) as partial:
            partial.mkdir()

    with pytest.raises(OSError, match="folder"):
        make()
    assert [*tmp_path.iterdir()] == [path]


def test_files_are_found_through_links_to_folders_and_loops_end(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "root"
    (outside / "deep").mkdir(parents=True)
    (outside / "deep" / "b").touch()
    (root / "own").mkdir(parents=True)
    (root / "own" / "a").touch()
    (root / "one").symlink_to(outside)
    (root / "two").symlink_to(outside / "deep")
    (outside / "back").symlink_to(root)
    (outside / "deep" / "itself").symlink_to(outside / "deep")
    found = [file.relative_to(root).as_posix() for file in files_below(root)]
    assert found == sorted(found)
    assert found == ["one/deep/b", "own/a", "two/b"]
