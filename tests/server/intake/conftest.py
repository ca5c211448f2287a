"""An intake over a folder of the test, and files for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from loragate_server.config.intake import IntakeSection
from loragate_server.intake.fetch import Intake


def weights(seed: int, *, values: int = 24) -> bytes:
    """A small valid file, another one for each seed."""
    drawn = np.random.default_rng(seed).normal(size=(2, values)).astype(np.float32)
    return save({"lora_unet_a.lora_down.weight": drawn})


@contextmanager
def as_nobody() -> Iterator[None]:
    """Without the rights of root, to whom no file is closed."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


@pytest.fixture
def corrupt() -> list[int]:
    """Grows with every stored file that is found changed."""
    return []


@pytest.fixture
def intake(tmp_path: Path, root: Path, corrupt: list[int]) -> Intake:
    section = IntakeSection(roots=(root,))
    return Intake(section, tmp_path / "store", lambda: corrupt.append(1))
