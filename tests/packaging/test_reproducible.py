"""The same files give the same wheels and sdists, whenever, wherever and by whomever."""

from __future__ import annotations

import os
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from scripts.supply.building import FOLDERS, BuildError, build, copy_of

ROOT = Path(__file__).parents[2]
EPOCH = 1_760_000_000


def built(place: Path, folders: Sequence[str]) -> dict[str, bytes]:
    made = build(place, place / "dist", EPOCH, folders)
    return {file.name: file.read_bytes() for file in made}


def disturbed(place: Path, folders: Sequence[str]) -> Path:
    """Another copy: of another time, closed to others, with what working leaves behind."""
    copy_of(ROOT, place, folders)
    for path in place.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
        os.utime(path, (1_000_000_000, 1_000_000_000))
    return place


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "folders", [("kernels",), pytest.param(("client", "server"), marks=pytest.mark.long)]
)
def test_two_builds_of_the_same_files_have_the_same_bytes(
    tmp_path: Path, folders: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_of(ROOT, tmp_path / "one", folders)
    first = built(tmp_path / "one", folders)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    before = os.umask(0o077)
    try:
        second = built(disturbed(tmp_path / "somewhere" / "two", folders), folders)
    finally:
        os.umask(before)
    assert len(first) == 2 * len(folders)
    assert sorted(first) == sorted(second)
    different = [name for name in first if first[name] != second[name]]
    assert different == []
    for file in (tmp_path / "one" / "dist").iterdir():
        _require_plain(file)


def _require_plain(file: Path) -> None:
    """One moment, no owner, no rights but the usual, and nothing of this machine."""
    if file.suffix == ".whl":
        with zipfile.ZipFile(file) as wheel:
            assert len({one.date_time for one in wheel.infolist()}) == 1
            assert {one.external_attr >> 16 & 0o777 for one in wheel.infolist()} <= {0o644, 0o664}
        return
    with tarfile.open(file) as sdist:
        members = sdist.getmembers()
    assert [one.name for one in members] == sorted(one.name for one in members)
    assert {(one.mtime, one.uid, one.gid, one.uname, one.gname) for one in members} == {
        (EPOCH, 0, 0, "", "")
    }
    assert {one.mode for one in members} == {0o644, 0o755}


def test_a_build_that_fails_says_what_the_build_said(tmp_path: Path) -> None:
    (tmp_path / "client").mkdir()
    with pytest.raises(BuildError, match=r"client: (.|\n)*does not appear to be a Python project"):
        build(tmp_path, tmp_path / "dist", EPOCH, ("client",))


def test_all_three_are_built_where_nothing_else_is_said() -> None:
    assert FOLDERS == ("client", "kernels", "server")
