"""Pictures that cost nothing, a library of them, and folders of subjects."""

from __future__ import annotations

import io
import random
from pathlib import Path

from PIL import Image

from loragate_server.concepts.concept import Concept, Role
from loragate_server.concepts.library import ConceptLibrary, start_library


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


def _concept(concept_id: str, role: Role = "forbidden") -> Concept:
    return Concept(concept_id, concept_id, "thing", "high", role)


def scribbled_library(folder: Path) -> ConceptLibrary:
    """Two concepts with 16 pictures, of which 4 are kept back, one with 3; a bank of 8."""
    made = start_library(folder, None)
    additions = [
        (_concept("mascot"), [png(100 + n) for n in range(16)]),
        (_concept("rival"), [png(200 + n) for n in range(16)]),
        (_concept("few"), [png(300 + n) for n in range(3)]),
    ]
    additions += [(_concept(f"plain-{n}", "neutral"), [png(400 + n)]) for n in range(8)]
    return made.add_all(additions)


def scribbled_things(folder: Path, count: int = 9) -> Path:
    """A folder of so many subjects with two pictures each."""
    for number in range(count):
        (folder / f"thing-{number}").mkdir(parents=True)
        for index in range(2):
            data = png(500 + 10 * number + index)
            (folder / f"thing-{number}" / f"{index}.png").write_bytes(data)
    return folder
