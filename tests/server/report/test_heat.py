"""The heat map of a report: which rows it has, and what stands in its cells."""

from __future__ import annotations

import math
from collections.abc import Callable

from loragate_server.audit.evidence import Evidence, HeatMap
from tests.server.report.reading import Page


def test_columns_of_the_heat_map_say_whether_the_name_was_told(
    concept: Callable[..., object],
    evidence: Callable[..., Evidence],
    clean: Callable[..., tuple[object, ...]],
    english: Callable[..., Page],
) -> None:
    heat = HeatMap("concept-0", ("unet.mid_block.0",), ("0.16", "0.30, named"), ((1.0, 5.0),))
    page = english(evidence(concept(score=6), *clean()[1:], heat_map=heat))
    shown = page.text("#heat")
    assert "16 % noise" in shown
    assert "30 % noise, asked by name" in shown


def rows(page: Page) -> list[str]:
    """Heads of the rows of the heat map, and of the one with every layer."""
    return [data for place, data in page.texts if {".heat", "tbody", "bdi"} <= place]


def names(page: Page) -> list[str]:
    """The names of the model's own beside them."""
    return [data for place, data in page.texts if {".heat", "tbody", "code"} <= place]


def test_many_layers_are_drawn_together(
    heat_map: Callable[..., HeatMap],
    evidence: Callable[..., Evidence],
    concept: Callable[..., object],
    english: Callable[..., Page],
) -> None:
    unet = english(evidence(concept(score=6), heat_map=heat_map()))
    assert "32 layers are shown in 14 groups" in unet.text("#heat")
    assert rows(unet)[:2] == ["Block 1: shapes and textures", "Block 1: attention"]
    assert names(unet)[:2] == ["down_blocks.0.resnets", "down_blocks.0.attentions"]
    assert len(rows(unet)) == 14 + 32
    assert "Output side" in unet.text("#heat")

    blocks = tuple(f"transformer_blocks.{n}" for n in range(57))
    transformer = english(evidence(concept(score=6), heat_map=heat_map(blocks)))
    assert rows(transformer)[:2] == ["Blocks 1 to 4", "Blocks 5 to 8"]
    assert names(transformer)[0] == "transformer_blocks.0 – 3"
    assert len(rows(transformer)) == 15 + 57

    small = english(evidence(concept(score=6), heat_map=heat_map(blocks[:6])))
    assert len(rows(small)) == 6
    assert "groups" not in small.text("#heat")


def test_a_group_shows_its_highest_value(
    evidence: Callable[..., Evidence],
    concept: Callable[..., object],
    english: Callable[..., Page],
) -> None:
    layers = tuple(f"transformer_blocks.{n}" for n in range(32))
    values = tuple((5.0 if n == 3 else math.nan if n in (4, 5) else -1.0,) for n in range(32))
    page = english(
        evidence(concept(score=6), heat_map=HeatMap("concept-0", layers, ("0.5",), values))
    )
    cells = [data for place, data in page.texts if {".heat", "tbody", "td"} <= place]
    assert cells[:3] == ["−1.0", "5.0", "–"]
