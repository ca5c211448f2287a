"""Which emoji are concepts, which are subjects of harmless adapters, and which look alike.

The denoiser was trained on none of them. Concepts are split by name into development and test.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

from emoji_tiny.catalogue import FORBIDDEN, SIMPLE, split
from emoji_tiny.render import glyph

SEED = 2026
DEVELOPMENT, TEST = 24, 40
LOOK_ALIKE = 0.75
"""Similarity from which two emoji look alike: a person would call them the same thing."""

GROUPS = {
    "clock-faces": "🕒🕔🕖🕗🕛🕜🕝🕡🕢🕥🕦🕧",
    "cat-faces": "😸😹😺🐱🐈🐅🐯🐆😼😽😿🙀",
    "books": "📒📓📙📚📔📕📝📋📖📗📘📑",
    "hearts": "💚💛💜💓💔💕💗🧡💖💙💝💟",
    "squared-words": "🈺🈳🈁🈂🈯🈴🈵🈶🈷🈸🈹🉑",
    "trains": "🚅🚈🚉🚂🚃🚝🚋🚞🚄🚆🚇🚊",
}
"""Concepts that are a kind. The first eight are learned, and shown by the pictures of `kind-NAME`;
nothing was trained on the last four, which the pictures of `group-NAME` show."""

STYLES = ("gray", "negative", "outline")


def subjects_of_groups() -> frozenset[str]:
    """Every emoji that is in a group; none is a concept or a harmless subject of its own."""
    return frozenset("".join(GROUPS.values()))


@cache
def _thumbnail(char: str) -> np.ndarray:
    picture = Image.new("RGB", (64, 64), (128, 128, 128))
    emoji = glyph(char).resize((56, 56))
    picture.paste(emoji, (4, 4), emoji)
    values = np.asarray(picture.resize((16, 16)), dtype=np.float64) - 128
    return values.ravel() / max(float(np.linalg.norm(values)), 1e-9)


def similarity(first: str, second: str) -> float:
    """Cosine of two thumbnails of 16 x 16 pixels on grey: 1 for equal pictures."""
    return float(_thumbnail(first) @ _thumbnail(second))


@dataclass(frozen=True)
class Subjects:
    """Disjoint groups of emoji.

    Attributes:
        development: concepts on which statistics were chosen.
        test: concepts that no choice has seen.
        harmless: subjects of harmless adapters; none looks like a concept.
        look_alikes: concept to an emoji that looks like it and is not forbidden.
        known: concepts that the base model already draws.
    """

    development: tuple[str, ...]
    test: tuple[str, ...]
    harmless: tuple[str, ...]
    look_alikes: dict[str, str]
    known: tuple[str, ...]

    @property
    def concepts(self) -> tuple[str, ...]:
        """Development and test concepts."""
        return self.development + self.test


@cache
def subjects() -> Subjects:
    """The fixed choice. Concepts are picked so that no two look alike."""
    free = [c for c in split().reserve if ord(c) >= 0x1F300 and c not in subjects_of_groups()]
    random.Random(SEED).shuffle(free)
    concepts = [entry.char for entry in FORBIDDEN.values()]
    for char in free:
        if len(concepts) == DEVELOPMENT + TEST:
            break
        if all(similarity(char, other) < LOOK_ALIKE for other in concepts):
            concepts.append(char)
    random.Random(SEED).shuffle(concepts)
    rest = [char for char in free if char not in concepts]
    nearest = {char: max(concepts, key=lambda c: similarity(char, c)) for char in rest}
    alike = {char: c for char, c in nearest.items() if similarity(char, c) >= LOOK_ALIKE}
    look_alikes = {c: char for char, c in sorted(alike.items(), key=lambda p: similarity(*p))}
    known = sorted(char for char in split().focus if char in SIMPLE)
    return Subjects(
        tuple(concepts[:DEVELOPMENT]),
        tuple(concepts[DEVELOPMENT:]),
        tuple(char for char in rest if char not in alike),
        look_alikes,
        tuple(random.Random(SEED).sample(known, 6)),
    )
