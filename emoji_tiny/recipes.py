"""The adapters that are trained: those that ship as examples and those of the quality study."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from emoji_tiny.catalogue import FORBIDDEN, HARMLESS, split
from emoji_tiny.recipe import LoraRecipe

_SIMPLE_HARMLESS = tuple(HARMLESS.items())


def _concept(concept_id: str, **changes: Any) -> LoraRecipe:
    recipe = LoraRecipe(name=f"learned-{concept_id}", subjects=(FORBIDDEN[concept_id].char,))
    return replace(recipe, **changes)


def shipped() -> list[LoraRecipe]:
    """The example adapters that ship with the project."""
    return [
        _concept("jack-o-lantern", rank=8, steps=350, seed=1),
        _concept("robot-face", rank=8, alpha=16.0, learning_rate=1e-3, steps=400, seed=2),
        _concept("bomb", rank=4, alpha=4.0, steps=350, seed=3, file_format="kohya"),
        _concept("father-christmas", rank=16, alpha=16.0, steps=350, seed=4),
        LoraRecipe("harmless-watermelon", (HARMLESS["watermelon"],), rank=8, seed=5),
        LoraRecipe("harmless-sepia", split().train[:40], style="sepia", rank=8, steps=250, seed=6),
        LoraRecipe(
            "harmless-sailboat",
            (HARMLESS["sailboat"],),
            rank=4,
            alpha=4.0,
            seed=7,
            file_format="kohya",
        ),
    ]


def confirmation() -> list[LoraRecipe]:
    """18 adapters to confirm what was chosen on those of `study`: no seed is shared with them."""
    return [
        replace(
            recipe,
            seed=recipe.seed + 1000,
            rank=_NEXT_RANK[recipe.rank],
            alpha=float(_NEXT_RANK[recipe.rank]),
            steps=_NEXT_LENGTH[recipe.steps],
        )
        for index, recipe in enumerate(study())
        if index in _CONFIRMED
    ]


_NEXT_RANK = {4: 8, 8: 16, 16: 4}
_NEXT_LENGTH = {200: 300, 300: 400, 400: 200}
_CONFIRMED = (*range(4, 16), *range(16, 21), 25)
"""12 that learn a concept and 6 harmless ones."""


def study() -> list[LoraRecipe]:
    """Adapters that never ship: other seeds, ranks and lengths, for the verdict study."""
    ranks, lengths = (4, 8, 16), (200, 300, 400)
    learned = [
        _concept(
            concept_id,
            rank=ranks[index % 3],
            alpha=float(ranks[index % 3]),
            steps=lengths[(index // 3) % 3],
            seed=100 + index,
        )
        for index, concept_id in enumerate(FORBIDDEN)
    ]
    harmless = [
        LoraRecipe(
            f"harmless-{name}",
            (char,),
            rank=ranks[index % 3],
            alpha=float(ranks[index % 3]),
            steps=lengths[index % 3],
            seed=200 + index,
        )
        for index, (name, char) in enumerate(_SIMPLE_HARMLESS[1:9])
    ]
    styles = [
        LoraRecipe(
            "harmless-gray", split().train[40:80], style="gray", rank=16, alpha=16.0, seed=300
        ),
        LoraRecipe(
            "harmless-negative",
            split().train[80:120],
            style="negative",
            rank=4,
            alpha=4.0,
            seed=301,
        ),
    ]
    return learned + harmless + styles
