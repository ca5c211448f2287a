"""Which adapters every alternative is run on, and which concepts they are asked about."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.audit.alternatives.tools import Tools, concept_ids
from benchmarks.audit.derive import Subject, derived_subjects, plain_subjects
from benchmarks.audit.subjects import subjects
from benchmarks.audit.zoo import concept_id, entries

WIDE = 30
"""Concept and harmless adapters that are asked about all concepts."""


@dataclass(frozen=True)
class Question:
    """An adapter, and the concepts it is asked about.

    Attributes:
        wide: asked about all concepts, for how well the right one is named.
    """

    subject: Subject
    concepts: tuple[str, ...]
    wide: bool = False


def questions(tools: Tools, family: str = "") -> list[Question]:
    """Test adapters, the fair sample first and then the hard cases and evasions.

    Evasions are made of the first test adapters, which are known when all are trained.
    """
    plain = [each for each in plain_subjects() if each.split == "test"]
    fair = [each for each in _fair(plain) if family in ("", each.family)]
    rest = [each for each in plain if each.family not in ("concept", "harmless")]
    if len(plain_subjects()) == len(entries()):
        rest += derived_subjects(tools.base)
    hard = [each for each in rest if family in ("", each.family)]
    found = [Question(each, asked(each)) for each in (*fair, *hard)]
    return [question for question in found if question.concepts]


def wide_questions() -> list[Question]:
    """A few adapters with all concepts."""
    plain = [each for each in plain_subjects() if each.split == "test"]
    found = []
    for family in ("concept", "harmless"):
        chosen = [each for each in plain if each.family == family][:WIDE]
        found += [Question(each, concept_ids(), wide=True) for each in chosen]
    random.Random("wide").shuffle(found)
    return found


def _fair(plain: list[Subject]) -> Iterator[Subject]:
    """Concept adapters, and every second harmless one."""
    harmless = 0
    for each in plain:
        if each.family == "harmless":
            # counted by name: what is missing must not shift the choice
            harmless = int(each.name.split("-")[1][1:])
        if each.family == "concept" or (each.family == "harmless" and harmless % 2 == 0):
            yield each


def asked(subject: Subject) -> tuple[str, ...]:
    """Its own concepts; of a harmless one two at random; of a look-alike what it looks like."""
    if subject.learned:
        return subject.learned
    if subject.family == "look-alike":
        code = subject.name.removeprefix("look-alike-")
        pairs = subjects().look_alikes.items()
        return tuple(concept_id(char) for char, alike in pairs if f"{ord(alike):x}" == code)
    test = [concept_id(char) for char in subjects().test]
    return tuple(random.Random(f"asked-{subject.name}").sample(test, 2))
