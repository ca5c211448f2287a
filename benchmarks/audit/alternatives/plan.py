"""Which adapters every alternative is run on, and which concepts they are asked about."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from benchmarks.audit.alternatives.tools import Tools, concept_ids
from benchmarks.audit.derive import Subject, derived_subjects, plain_subjects
from benchmarks.audit.subjects import GROUPS, STYLES, subjects
from benchmarks.audit.zoo import concept_id, entries

WIDE = 30
"""Concept and harmless adapters that are asked about all concepts."""
EXTRA = 32
"""Harmless adapters that are asked about two of the extra concepts as well."""


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
    rest += derived_subjects(tools.base)
    hard = [each for each in rest if family in ("", each.family)]
    found = [Question(each, (*asked(each), *also_asked(each.name))) for each in (*fair, *hard)]
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
    for each in plain:
        if each.family == "concept" or (each.family == "harmless" and _is_even(each.name)):
            yield each


def _is_even(harmless: str) -> bool:
    """By its name: what is missing must not shift the choice."""
    return int(harmless.split("-")[1][1:]) % 2 == 0


@cache
def extra_concepts() -> dict[str, str]:
    """Concepts beside the 64, to the sort that each is of."""
    found = {f"kind-{name}": "kind" for name in GROUPS}
    found |= {f"group-{name}": "other members of a kind" for name in GROUPS}
    found |= {f"style-{style}": "style" for style in STYLES}
    return found | {concept_id(char): "known to the base" for char in subjects().known}


@cache
def _harmless_with_extra() -> dict[str, tuple[str, ...]]:
    """Harmless test adapters to extra concepts; every concept is asked three times or more."""
    rng = random.Random("extra")
    names = [e.name for e in entries() if (e.family, e.split) == ("harmless", "test")]
    chosen = rng.sample(sorted(filter(_is_even, names)), EXTRA)
    concepts = rng.sample(sorted(extra_concepts()), len(extra_concepts()))
    return {
        name: tuple(concepts[(2 * place + step) % len(concepts)] for step in (0, 1))
        for place, name in enumerate(chosen)
    }


def also_asked(name: str) -> tuple[str, ...]:
    """Extra concepts that this adapter is asked about for the thresholds' sake."""
    return _harmless_with_extra().get(name, ())


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
