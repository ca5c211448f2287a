"""A library with forbidden concepts of many pictures, and subjects that nobody forbids."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from loragate_server.concepts.concept import Concept
from loragate_server.concepts.library import ConceptLibrary, start_library


@pytest.fixture(autouse=True)
def _seed_of_its_own() -> Iterator[None]:
    with torch.random.fork_rng():
        yield


def scribble(seed: int) -> Image.Image:
    """Blocks of colour, unlike those of other seeds."""
    rng = random.Random(seed)
    picture = Image.new("RGB", (4, 4))
    picture.putdata([tuple(rng.randrange(256) for _ in range(3)) for _ in range(16)])
    return picture.resize((32, 32), Image.Resampling.NEAREST)


def png(seed: int) -> bytes:
    data = io.BytesIO()
    scribble(seed).save(data, "PNG")
    return data.getvalue()


def concept(concept_id: str, role: str = "forbidden") -> Concept:
    return Concept(concept_id, concept_id, "thing", "high", role)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ConceptLibrary:
    """Two concepts with 16 pictures, of which 4 are kept back, one with 3; a bank of 8."""
    made = start_library(tmp_path_factory.mktemp("library") / "own", None)
    additions = [
        (concept("mascot"), [png(100 + n) for n in range(16)]),
        (concept("rival"), [png(200 + n) for n in range(16)]),
        (concept("few"), [png(300 + n) for n in range(3)]),
    ]
    additions += [(concept(f"plain-{n}", "neutral"), [png(400 + n)]) for n in range(8)]
    return made.add_all(additions)


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of nine subjects with two pictures each."""
    folder = tmp_path_factory.mktemp("things")
    for number in range(9):
        (folder / f"thing-{number}").mkdir()
        for index in range(2):
            data = png(500 + 10 * number + index)
            (folder / f"thing-{number}" / f"{index}.png").write_bytes(data)
    return folder
