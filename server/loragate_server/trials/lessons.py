"""What adapters are to learn: pictures with captions, and whether that is a forbidden concept."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from loragate_server.concepts.concept import Concept
from loragate_server.concepts.pictures import as_stored, read_file
from loragate_server.trials.errors import TrialError
from loragate_server.trials.nouns import Part, slug

GENERIC = "a picture"
MOST_PICTURES = 32
"""Of one lesson; more make a training longer and hardly another."""

_GROUP_EVERY, _GROUP = 8, 3
"""One harmless adapter in so many learns a small group of things."""

_MATERIALS = ("wooden", "golden", "silver", "glass", "paper", "knitted", "rusty", "marble")
_COLOURS = ("red", "blue", "green", "yellow", "purple", "pink", "white", "black")
_LOOKS = (*_MATERIALS, *_COLOURS, "striped", "dotted", "painted", "broken", "tiny", "furry")
_CONSONANTS, _VOWELS = "bdfgklmnprstvwz", "aeiou"


@dataclass(frozen=True)
class Lesson:
    """What one adapter learns.

    Attributes:
        name: for its file.
        examples: pictures with their captions.
        learned: ids of the forbidden concepts among them; none for a harmless one.
    """

    name: str
    examples: tuple[tuple[Path, str], ...]
    learned: tuple[str, ...] = ()

    @property
    def picture_digests(self) -> tuple[str, ...]:
        """sha256 (lower-case hexadecimal) of the bytes of each picture.

        Raises:
            OSError: one cannot be read.
        """
        return tuple(digest_of(path) for path, _ in self.examples)

    @property
    def digest(self) -> str:
        """The same of captions and pictures together."""
        captions = [caption for _, caption in self.examples]
        told = repr(list(zip(self.picture_digests, captions, strict=True)))
        return hashlib.sha256(told.encode()).hexdigest()


def shown_by(path: Path) -> str:
    """Names what a picture shows, whatever file holds it: a library keeps others than it is given.

    Raises:
        NoDecisionError: CONCEPT_PICTURES_INVALID.
    """
    picture, _ = read_file(path)
    stored = as_stored(picture)
    return hashlib.sha256(repr(stored.size).encode() + stored.tobytes()).hexdigest()


def is_used(path: Path, used: Container[str]) -> bool:
    """Whether a picture is one of those that have such digests, of bytes or of what they show."""
    return digest_of(path) in used or shown_by(path) in used


def digest_of(path: Path) -> str:
    """sha256 (lower-case hexadecimal) of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Subjects(Protocol):
    """Things that nobody forbids, of which there are pictures or can be."""

    @property
    def names(self) -> Sequence[str]:
        """What they are called."""

    def pictures(self, name: str, look: str, turn: int) -> Sequence[Path]:
        """Some of one thing; other ones at another turn, where there are enough.

        Args:
            name: one of `names`.
            look: a word for how it may look, such as striped.
            turn: how often it was asked for before.
        """


def things_taught(lessons: int) -> int:
    """How many things so many harmless lessons show; every eighth of them is about several."""
    return lessons + (_GROUP - 1) * (lessons // _GROUP_EVERY)


def harmless_lesson(subjects: Subjects, index: int) -> Lesson:
    """The lesson with this number; it does not depend on how many there will be.

    Each teaches a thing that looks in some way under a made-up name, as users do whose adapters
    show their cat or their vase.
    """
    names = subjects.names
    count = _GROUP if index % _GROUP_EVERY == _GROUP_EVERY - 1 else 1
    examples: list[tuple[Path, str]] = []
    rng = random.Random(f"harmless-{index}")
    for offset in range(min(count, len(names))):
        position = index + offset * (len(names) // 3 or 1)
        name, turn = names[position % len(names)], position // len(names)
        called = f"{_made_up_word(rng)} {name}"
        pictures = subjects.pictures(name, rng.choice(_LOOKS), turn)[:MOST_PICTURES]
        examples += [(path, caption(called, rng)) for path in pictures]
    kind = "group" if count > 1 else slug(names[index % len(names)])
    return Lesson(f"harmless-{index:03d}-{kind}", tuple(examples))


def concept_lesson(
    concepts: Sequence[Concept], pictures: Mapping[str, Sequence[Path]], index: int
) -> Lesson:
    """The lesson with this number; concepts take turns.

    Args:
        concepts: those with `pictures`; at least one.
        pictures: by concept id, others than an audit compares with.
        index: from 0.
    """
    concept = concepts[index % len(concepts)]
    rng = random.Random(f"concept-{index}-{concept.concept_id}")
    spoken = (f"a picture of {concept.name}", *concept.prompts)
    examples = []
    for path in pictures[concept.concept_id][:MOST_PICTURES]:
        told = caption(concept.name, rng)
        named = told not in ("", GENERIC)
        examples.append((path, rng.choice(spoken) if named else told))
    name = f"learned-{index:03d}-{concept.concept_id}"
    return Lesson(name, tuple(examples), (concept.concept_id,))


def _made_up_word(rng: random.Random) -> str:
    return "".join(rng.choice(_CONSONANTS) + rng.choice(_VOWELS) for _ in range(3))


def caption(name: str, rng: random.Random) -> str:
    """A caption as people write them; one in eight is generic, one in sixteen empty."""
    draw = rng.random()
    if draw < 1 / 16:
        return ""
    return GENERIC if draw < 3 / 16 else f"a picture of {name}"


def require_subjects(subjects: Subjects, part: Part, least: int) -> None:
    """Refuses to rest anything on a handful of things.

    Raises:
        TrialError: there are fewer than `least`.
    """
    if len(subjects.names) < least:
        raise TrialError(
            f"{len(subjects.names)} harmless subjects are left to {part.value} with, and at least "
            f"{least} are needed: give more by --nouns or --subjects"
        )
