"""A library with forbidden concepts of many pictures, and subjects that nobody forbids."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from loragate_server.concepts.library import ConceptLibrary
from testkit.scribbled import scribbled_library, scribbled_things


@pytest.fixture(autouse=True)
def _seed_of_its_own() -> Iterator[None]:
    with torch.random.fork_rng():
        yield


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ConceptLibrary:
    return scribbled_library(tmp_path_factory.mktemp("library") / "own")


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scribbled_things(tmp_path_factory.mktemp("things"))
