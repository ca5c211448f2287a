"""Which names speak of a LoRA."""

from __future__ import annotations

import pytest

from loragate_server.intercept.reading.lora_words import speaks_of_lora


@pytest.mark.parametrize(
    "name",
    [
        "lora",
        "lora_name",
        "LoraLoader",
        "LoRA",
        "LORA",
        "xLORA",
        "MyLora",
        "batchlora",
        "patchlora",
        "colorLora",
        "ColorLoRA",
        "ecoLora",
        "flora_lora",
        "exp_lora",
        "impLora",
        "explorationLora",
        "explora_lora",
        "lycoris",
        "LoCon",
    ],
)
def test_names_that_speak_of_a_lora(name: str) -> None:
    assert speaks_of_lora(name)


@pytest.mark.parametrize(
    "name",
    [
        "exploration",
        "EXPLORATION",
        "exploratory_rate",
        "unexplorable",
        "MultiExploration",
        "deplorable",
        "imploration",
        "coloration",
        "ColorAdjust",
        "image_color_adjust",
        "discoloration",
        "floral",
        "FLORA",
        "chlorate",
        "Valorant",
    ],
)
def test_words_of_english_that_hold_the_letters_by_chance(name: str) -> None:
    assert not speaks_of_lora(name)
