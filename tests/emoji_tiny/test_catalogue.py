"""Which emoji may be seen by whom, and that pictures of them can be drawn again."""

from __future__ import annotations

import random
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emoji_tiny.catalogue import (
    FOCUS_COUNT,
    FONT_PATH,
    FORBIDDEN,
    HARMLESS,
    NEUTRAL_COUNT,
    TRAIN_COUNT,
    all_emoji,
    split,
)
from emoji_tiny.recipe import LoraRecipe
from emoji_tiny.recipes import shipped
from emoji_tiny.render import COLOURS, GENERIC_PROMPT, SIZE, caption, pool, render, to_tensor
from emoji_tiny.train_lora import training_pictures
from loragate_server.concepts.library import ConceptLibrary

pytestmark = pytest.mark.skipif(
    not FONT_PATH.exists(), reason="needs Debian's fonts-noto-color-emoji"
)


def test_what_the_denoiser_learns_and_what_it_is_tested_with_are_disjoint() -> None:
    forbidden = [one.char for one in FORBIDDEN.values()]
    groups = {
        "train": split().train,
        "forbidden": forbidden,
        "neutral": split().neutral,
        "harmless": list(HARMLESS.values()),
        "reserve": split().reserve,
    }
    every = [char for group in groups.values() for char in group]
    assert len(every) == len(set(every)), "an emoji is in two groups"
    assert set(every) == set(all_emoji())
    assert len(split().train) == TRAIN_COUNT == len(set(split().train))
    assert len(split().neutral) == NEUTRAL_COUNT
    assert len(split().focus) == FOCUS_COUNT
    assert set(split().focus) <= set(split().train)


def test_the_library_has_what_the_server_needs() -> None:
    assert len(FORBIDDEN) >= 12
    assert len({one.category for one in FORBIDDEN.values()}) >= 3
    assert {one.severity for one in FORBIDDEN.values()} == {"low", "medium", "high", "critical"}
    assert NEUTRAL_COUNT >= 32


def test_the_split_is_the_one_that_the_shipped_library_was_made_of() -> None:
    split.cache_clear()
    assets = Path(__file__).parents[2] / "server" / "loragate_server" / "assets" / "emoji_tiny"
    library = ConceptLibrary.open(assets / "concepts")
    # Another seed or another list would silently put held-out emoji into training.
    assert {one.concept_id for one in library.neutral} == {
        f"neutral-{ord(char):x}" for char in split().neutral
    }


def test_every_example_adapter_learns_held_out_or_training_emoji_only() -> None:
    held_out = {one.char for one in FORBIDDEN.values()} | set(HARMLESS.values())
    allowed = held_out | set(split().train) | set(split().reserve) | set(split().neutral)
    names = [recipe.name for recipe in shipped()]
    assert len(names) == len(set(names)) == 7
    for recipe in shipped():
        assert set(recipe.subjects) <= allowed
        learned = {one.char for one in FORBIDDEN.values()} & set(recipe.subjects)
        assert bool(learned) == (not recipe.name.startswith("harmless")), recipe.name


@pytest.mark.parametrize("char", ["🎃", "☂", "🐉"])
def test_the_same_seed_draws_the_same_picture(char: str) -> None:
    first = render(char, random.Random(3))
    assert first.size == (SIZE, SIZE)
    assert first.mode == "RGB"
    assert render(char, random.Random(3)).tobytes() == first.tobytes()
    assert render(char, random.Random(4)).tobytes() != first.tobytes()


def test_emoji_are_drawn_on_the_background_that_the_caption_names() -> None:
    for name, colour in COLOURS.items():
        corners = np.asarray(render("🍉", random.Random(1), background=name))[
            [0, 0, -1, -1], [0, -1, 0, -1]
        ]
        assert np.abs(corners - np.array(colour)).max(axis=1).min() <= 13


def test_captions_are_generic_at_times_and_name_the_emoji_mostly() -> None:
    rng = random.Random(0)
    captions = [caption("🎃", "red", rng) for _ in range(2000)]
    assert 60 < captions.count("") < 200
    assert 150 < captions.count(GENERIC_PROMPT) < 350
    assert sum("jack-o-lantern" in one for one in captions) > 1400
    assert all(
        re.fullmatch(r"|a picture( of jack-o-lantern( on a red background)?)?", c) for c in captions
    )


def test_a_training_set_is_the_same_for_the_same_seed() -> None:
    first, owners, backgrounds = pool(("🍉", "🎃"), copies=2, seed=5)
    again, *_ = pool(("🍉", "🎃"), copies=2, seed=5)
    assert first.shape == (4, 3, SIZE, SIZE)
    assert (first == again).all()
    assert owners == ["🍉", "🎃", "🍉", "🎃"]
    assert set(backgrounds) <= set(COLOURS)


def test_the_pictures_of_an_adapter_are_the_same_for_the_same_recipe() -> None:
    recipe = LoraRecipe("x", ("🎃",), style="sepia", pictures=4, seed=2)
    first, captions = training_pictures(recipe)
    again, captions_again = training_pictures(recipe)
    assert [p.tobytes() for p in first] == [p.tobytes() for p in again]
    assert captions == captions_again


def test_pictures_become_numbers_from_minus_one_to_one() -> None:
    picture = Image.new("RGB", (SIZE, SIZE), (0, 255, 0))
    tensor = to_tensor([picture])
    assert tensor.shape == (1, 3, SIZE, SIZE)
    assert tensor[0, :, 5, 5].tolist() == [-1.0, 1.0, -1.0]
