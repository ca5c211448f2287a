"""The copy of the embedded library that a server makes when somebody first changes it."""

from __future__ import annotations

import errno
import inspect
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from loragate_server.app.folders import EmbeddedLibrary, open_library, own_library_folder
from loragate_server.concepts.library import ConceptLibrary
from loragate_server.config.schema import Config
from loragate_server.errors import ErrorReason, NoDecisionError


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(state_dir=tmp_path)


def test_two_that_copy_the_library_at_once_both_get_it_whole(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded = config.library_folder
    copied, copytree = threading.Barrier(2), shutil.copytree

    def together(*folders: Any) -> None:
        copytree(*folders)
        copied.wait(30)

    monkeypatch.setattr(shutil, "copytree", together)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(own_library_folder, [config, config]))
    assert found == [config.own_library] * 2
    assert open_library(config.own_library).digest == open_library(embedded).digest
    assert [*config.own_library.parent.iterdir()] == [config.own_library]


def test_a_copy_for_which_there_is_no_room_is_refused_and_leaves_nothing(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(_: Path, target: Path) -> None:
        target.mkdir()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copytree", fill)
    with pytest.raises(NoDecisionError) as caught:
        own_library_folder(config)
    assert caught.value.reason is ErrorReason.DISK_FULL
    assert not [*config.own_library.parent.iterdir()]


def test_whatever_changes_a_library_is_done_on_a_copy_of_the_embedded_one() -> None:
    changing = {
        name
        for name, one in vars(ConceptLibrary).items()
        if inspect.isfunction(one) and "_locked" in one.__code__.co_names
    }
    assert {"add_all", "replace", "remove"} <= changing
    assert changing <= vars(EmbeddedLibrary).keys()
