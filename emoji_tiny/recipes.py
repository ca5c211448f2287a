"""The adapters that ship as examples."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from emoji_tiny.catalogue import FORBIDDEN, HARMLESS, split
from emoji_tiny.recipe import LoraRecipe


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
