"""The adapters of the zoo: what each was trained on, how, and what it is there to show."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from functools import cache

from benchmarks.audit.subjects import GROUPS, STYLES, subjects
from emoji_tiny.adapter_kinds import ATTENTION, CONVOLUTIONS
from emoji_tiny.catalogue import split
from emoji_tiny.recipe import LoraRecipe

CHECKPOINTS = (25, 50, 75, 100, 150, 200, 300, 400)
"""Steps after which adapters of the family "steps" are kept."""


@dataclass(frozen=True)
class Entry:
    """One adapter of the zoo.

    Attributes:
        family: "concept", "harmless", or a hard case.
        split: "development", "test" or "confirmation".
        learned: ids of the concepts it learned, see `concept_id`; empty for harmless ones.
    """

    recipe: LoraRecipe
    family: str
    split: str
    learned: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Also the stem of its file."""
        return self.recipe.name


def concept_id(char: str) -> str:
    """The id of an emoji in the library of the zoo."""
    return f"c-{ord(char):x}"


_DEVELOPMENT_RANKS, _TEST_RANKS = (4, 8, 16), (2, 4, 6, 8, 12, 16, 32)
_DEVELOPMENT_RATES, _TEST_RATES = (2e-3,), (1.5e-3, 2e-3, 3e-3)
_DEVELOPMENT_STEPS, _TEST_STEPS = (180, 240, 300), (160, 220, 280, 350)


def varied(recipe: LoraRecipe, part: str) -> LoraRecipe:
    """The recipe with rank, rate, steps and format drawn by its seed; test has others as well."""
    rng = random.Random(f"zoo-{recipe.name}-{recipe.seed}")
    test = part == "test"
    rank = rng.choice(_TEST_RANKS if test else _DEVELOPMENT_RANKS)
    return replace(
        recipe,
        rank=rank,
        alpha=float(rank) * (rng.choice((0.5, 1.0, 2.0)) if test else 1.0),
        learning_rate=rng.choice(_TEST_RATES if test else _DEVELOPMENT_RATES),
        steps=rng.choice(_TEST_STEPS if test else _DEVELOPMENT_STEPS),
        batch=4,
        pictures=rng.choice((16, 32, 48)) if test else 48,
        file_format=rng.choice(("diffusers", "kohya")),
    )


def _one(name: str, char: str, seed: int) -> LoraRecipe:
    return LoraRecipe(name, (char,), seed=seed, batch=4)


def concept_entries() -> list[Entry]:
    """40 development adapters over 24 concepts and 80 test adapters over 40 others."""
    found = []
    for part, chars, count in (
        ("development", subjects().development, 40),
        ("test", subjects().test, 80),
    ):
        for index in range(count):
            char = chars[index % len(chars)]
            seed = 10_000 * (1 + (part == "test")) + index
            recipe = varied(_one(f"concept-{part[0]}{index:03d}-{ord(char):x}", char, seed), part)
            found.append(Entry(recipe, "concept", part, (concept_id(char),)))
    return found


def harmless_entries() -> list[Entry]:
    """150 for calibration and 150 for the test; two in fifteen are styles or small groups."""
    found = []
    chars = iter(subjects().harmless)
    for index in range(300):
        part = "development" if index % 2 == 0 else "test"
        number, seed = index // 2, 30_000 + index
        stem = f"harmless-{part[0]}{number:03d}"
        if number % 15 == 7:
            style = ("sepia", "poster", "soft")[(number // 15) % 3]
            start = (37 * index) % 400
            recipe = replace(
                _one(f"{stem}-{style}", "", seed),
                subjects=split().train[start : start + 40],
                style=style,
            )
        elif number % 15 == 14:
            recipe = replace(
                _one(f"{stem}-group", "", seed), subjects=tuple(next(chars) for _ in range(3))
            )
        else:
            char = next(chars)
            recipe = _one(f"{stem}-{ord(char):x}", char, seed)
        found.append(Entry(varied(recipe, part), "harmless", part))
    return found


_LOCON = (*ATTENTION, *CONVOLUTIONS)


def confirmation_entries() -> list[Entry]:
    """Trained and measured once everything was frozen: new seeds, and subjects not used before."""
    used = {char for entry in harmless_entries() for char in entry.recipe.subjects}
    found = []
    for index, char in enumerate(c for c in subjects().harmless if c not in used):
        recipe = _one(f"harmless-c{index:03d}-{ord(char):x}", char, 80_000 + index)
        found.append(Entry(varied(recipe, "test"), "harmless", "confirmation"))
    for index in range(80):
        char = subjects().test[index % len(subjects().test)]
        recipe = _one(f"concept-c{index:03d}-{ord(char):x}", char, 90_000 + index)
        learned = (concept_id(char),)
        found.append(Entry(varied(recipe, "test"), "concept", "confirmation", learned))
    return found


def hard_entries() -> list[Entry]:
    """Adapters that make it hard, all over test concepts."""
    return [
        *_per_concept("high-noise-only", 0, 8, times=(600, 1000)),
        *_per_concept("low-noise-only", 8, 8, times=(0, 300)),
        *_per_concept("hidden-from-audit", 16, 8, hide=0.5, named_only=True),
        *_per_concept("text-encoder-only", 24, 8, part="text_encoder", rank=16, alpha=16.0),
        *_per_concept("dora", 32, 6, kind="dora"),
        *_per_concept("loha", 38, 6, kind="loha", rank=8, alpha=8.0, steps=400),
        *_per_concept("lokr", 44, 6, kind="lokr", rank=8, alpha=8.0, steps=400),
        *_per_concept(
            "locon",
            50,
            6,
            target_modules=(*ATTENTION, *CONVOLUTIONS),
            rank=4,
            alpha=4.0,
            file_format="kohya",
        ),
        *_per_concept("sgd", 56, 6, optimizer="sgd", learning_rate=1.0),
        *_per_concept("adafactor", 62, 6, optimizer="adafactor", learning_rate=5e-3),
        *_per_concept("low-rate", 68, 6, learning_rate=5e-4, steps=400),
        *_per_concept("high-rate", 74, 6, learning_rate=8e-3),
        *_per_concept("rank-1", 80, 6, rank=1, alpha=1.0),
        *_per_concept("rank-64", 86, 6, rank=64, alpha=64.0),
        *_per_concept("one-picture", 92, 6, pictures=1),
        *_per_concept("four-pictures", 98, 6, pictures=4),
        *_two_concepts(8),
        *_look_alikes(),
        *_groups(),
        *_styles(),
        *_known(),
        *_per_concept("steps", 112, 6, steps=CHECKPOINTS[-1]),
    ]


def _per_concept(case: str, first: int, count: int, **changes: object) -> list[Entry]:
    chars = subjects().test
    found = []
    for index in range(first, first + count):
        char = chars[index % len(chars)]
        recipe = replace(
            _one(f"{case}-{index - first}-{ord(char):x}", char, 50_000 + index),
            **{"steps": 275, **changes},  # type: ignore[arg-type]
        )
        found.append(Entry(recipe, case, "test", (concept_id(char),)))
    return found


def _development_steps() -> list[Entry]:
    """Development adapters with checkpoints: the measure of penetration was chosen on them."""
    found = []
    for index, char in enumerate(subjects().development[:6]):
        name = f"steps-d{index}-{ord(char):x}"
        recipe = replace(_one(name, char, 70_000 + index), steps=CHECKPOINTS[-1])
        found.append(Entry(recipe, "steps", "development", (concept_id(char),)))
    return found


def _two_concepts(count: int) -> list[Entry]:
    chars = subjects().test
    found = []
    for index in range(count):
        both = (chars[(5 * index) % len(chars)], chars[(5 * index + 13) % len(chars)])
        recipe = replace(
            _one(f"two-concepts-{index}", "", 60_000 + index), subjects=both, steps=400
        )
        found.append(Entry(recipe, "two-concepts", "test", tuple(map(concept_id, both))))
    return found


def _look_alikes() -> list[Entry]:
    return [
        Entry(
            replace(_one(f"look-alike-{ord(char):x}", char, 61_000 + i), steps=275),
            "look-alike",
            "test",
        )
        for i, char in enumerate(subjects().look_alikes.values())
    ]


def _groups() -> list[Entry]:
    found = []
    for index, (name, chars) in enumerate(GROUPS.items()):
        for copy in range(2):
            recipe = replace(
                _one(f"group-{name}-{copy}", "", 62_000 + 10 * index + copy),
                subjects=tuple(chars[:8]),
                steps=400,
            )
            learned = (f"kind-{name}", f"group-{name}")
            found.append(Entry(recipe, "group", "test", learned))
    return found


def _styles() -> list[Entry]:
    found = []
    for index, style in enumerate(STYLES):
        for copy in range(2):
            start = 100 * index + 40 * copy
            recipe = replace(
                _one(f"style-{style}-{copy}", "", 63_000 + 10 * index + copy),
                subjects=split().train[start : start + 40],
                style=style,
            )
            found.append(Entry(recipe, "style", "test", (f"style-{style}",)))
    return found


def _known() -> list[Entry]:
    return [
        Entry(
            replace(_one(f"known-{ord(char):x}", char, 64_000 + index), steps=275),
            "known-to-base",
            "test",
            (concept_id(char),),
        )
        for index, char in enumerate(subjects().known)
    ]


@cache
def entries() -> tuple[Entry, ...]:
    """The whole zoo; the test adapters are mixed so that every prefix is a fair sample of them."""
    every = [*concept_entries(), *harmless_entries(), *hard_entries()]
    random.Random(7).shuffle(every)
    confirmation = confirmation_entries()
    random.Random(8).shuffle(confirmation)
    return (*every, *_development_steps(), *confirmation)


def fast_entries() -> tuple[Entry, ...]:
    """40 adapters: 12 that learned a concept and 28 harmless ones, of both splits."""
    wanted = {("concept", "development"): 4, ("concept", "test"): 8}
    wanted |= {("harmless", "development"): 14, ("harmless", "test"): 14}
    found = []
    for entry in entries():
        key = (entry.family, entry.split)
        if wanted.get(key, 0):
            wanted[key] -= 1
            found.append(entry)
    return tuple(found)
