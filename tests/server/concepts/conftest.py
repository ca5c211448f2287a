"""A small concept library with real pictures."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from loragate_server.concepts.concept import Concept
from loragate_server.concepts.library import ConceptLibrary

Entry = dict[str, Any]


def _draw(seed: int, size: tuple[int, int] = (24, 20), kind: str = "PNG", **options: Any) -> bytes:
    picture = Image.new("RGB", size, ((seed * 37) % 256, (seed * 91) % 256, (seed * 151) % 256))
    ImageDraw.Draw(picture).ellipse((seed % 7, seed % 5, size[0] - 4, size[1] - 3), fill="white")
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


@pytest.fixture
def draw() -> Callable[..., bytes]:
    """Makes a picture that differs from seed to seed."""
    return _draw


@pytest.fixture
def entries(tmp_path: Path) -> list[Entry]:
    """Two forbidden and nine neutral concepts as a manifest has them; the pictures are there."""
    shots = tmp_path / "library" / "shots"
    shots.mkdir(parents=True)
    made = []
    for index, concept_id in enumerate(("dog", "cat", *(f"neutral-{n}" for n in range(9)))):
        for number in range(2):
            (shots / f"{concept_id}-{number}.png").write_bytes(_draw(10 * index + number))
        made.append(
            {
                "id": concept_id,
                "name": concept_id.title(),
                "category": "animal",
                "severity": "high",
                "role": "neutral" if index > 1 else "forbidden",
                "prompts": [f"a picture of {concept_id}"],
                "pictures": [f"shots/{concept_id}-{number}.png" for number in range(2)],
            }
        )
    return made


@pytest.fixture
def folder(tmp_path: Path, entries: list[Entry], write: Callable[..., None]) -> Path:
    """A whole library of these entries."""
    write(entries)
    return tmp_path / "library"


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., None]:
    """Writes the manifest; JSON is YAML too."""

    def write_manifest(concepts: Sequence[Entry], **changes: Any) -> None:
        manifest = {"version": 1, "concepts": list(concepts), **changes}
        (tmp_path / "library" / "library.yaml").write_text(json.dumps(manifest), "utf-8")

    return write_manifest


@pytest.fixture
def library(folder: Path) -> ConceptLibrary:
    return ConceptLibrary.open(folder)


@pytest.fixture
def fox() -> Concept:
    """A concept that is not in the library."""
    return Concept("fox", "Fox", "animal", "low", "forbidden", prompts=("a fox",))
