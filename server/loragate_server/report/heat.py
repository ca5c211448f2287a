"""The heat map of a report: cells with a shade, many layers drawn together into groups."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from loragate_server.audit.evidence import HeatMap
from loragate_server.report.blocks import block_in_words
from loragate_server.wording.printable import printable
from loragate_server.wording.wording import Wording

SHADES = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0)
"""Lower bounds of the shades 1 to 6, in standard deviations; shade 0 is below the first."""

_MOST_ROWS = 16
_FEWEST_GROUPS = 4
_MOST_LAYERS_UNGROUPED = 20
_PARTS = (
    "down_blocks",
    "mid_block",
    "up_blocks",
    "transformer_blocks",
    "single_transformer_blocks",
)


@dataclass(frozen=True)
class Cell:
    """One value. `shade` is 0 to 6, or "none" where there is no number; `title` says it in full."""

    text: str
    shade: str
    title: str


@dataclass(frozen=True)
class Row:
    """One layer or group of layers; `name` is the model's own, where `label` is another."""

    label: str
    name: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Part:
    """Rows of one part of the model; `title` is empty where the part has no plain name."""

    title: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Heat:
    """A heat map to draw.

    Attributes:
        times: heads of the columns.
        parts: what to show, in order of the forward pass.
        every: all layers, where `parts` shows groups of them; else empty.
        legend: shade and the range of values that it stands for.
    """

    concept: str
    times: tuple[str, ...]
    parts: tuple[Part, ...]
    every: tuple[Part, ...]
    layers: int
    rows: int
    legend: tuple[tuple[str, str], ...]


def draw(wording: Wording, heat_map: HeatMap, concept: str) -> Heat | None:
    """The heat map, or None if it has no cells.

    Args:
        wording: of the language.
        heat_map: values by layer and time.
        concept: name of its concept, for people.
    """
    if not heat_map.layers or not heat_map.times:
        return None
    alone = [(name, [index]) for index, name in enumerate(heat_map.layers)]
    groups = alone if len(alone) <= _MOST_LAYERS_UNGROUPED else _grouped(heat_map.layers)
    return Heat(
        concept=concept,
        times=tuple(_noise(wording, time) for time in heat_map.times),
        parts=_parts(wording, heat_map, groups),
        every=_parts(wording, heat_map, alone) if groups is not alone else (),
        layers=len(alone),
        rows=len(groups),
        legend=_legend(wording),
    )


_Group = tuple[str, list[int]]


def _grouped(layers: Sequence[str]) -> list[_Group]:
    """Neighbours drawn together: by the deepest common name that is coarse enough, else by count.

    A transformer has one long list of blocks, whose names give too few groups to be of use.
    """
    for depth in range(max(name.count(".") for name in layers), 0, -1):
        groups = [
            (prefix, list(indices))
            for prefix, indices in groupby(
                range(len(layers)), key=lambda i: ".".join(layers[i].split(".")[:depth])
            )
        ]
        if _FEWEST_GROUPS <= len(groups) <= _MOST_ROWS:
            return groups
    size = math.ceil(len(layers) / _MOST_ROWS)
    chunks: list[_Group] = []
    for _, run in groupby(range(len(layers)), key=lambda i: _part_of(layers[i])):
        indices = list(run)
        for start in range(0, len(indices), size):
            chunk = indices[start : start + size]
            first, last = layers[chunk[0]], layers[chunk[-1]]
            tail = last.rpartition(".")[2] if "." in last else last
            chunks.append((first if len(chunk) == 1 else f"{first} – {tail}", chunk))
    return chunks


def _part_of(layer: str) -> str:
    return next((piece for piece in layer.split(".") if piece in _PARTS), "")


def _parts(wording: Wording, heat_map: HeatMap, groups: list[_Group]) -> tuple[Part, ...]:
    return tuple(
        Part(
            title=wording(f"part.{part}") if part else "",
            rows=tuple(_row(wording, heat_map, label, indices) for label, indices in members),
        )
        for part, members in groupby(groups, key=lambda group: _part_of(group[0]))
    )


def _row(wording: Wording, heat_map: HeatMap, label: str, indices: list[int]) -> Row:
    name = printable(label, 120)
    cells = []
    for column, time in enumerate(heat_map.times):
        values = [heat_map.values[index][column] for index in indices]
        numbers = [value for value in values if not math.isnan(value)]
        cells.append(_cell(wording, name, time, max(numbers, default=math.nan)))
    words = block_in_words(wording, name)
    return Row(words or name, name if words else "", tuple(cells))


def _cell(wording: Wording, layer: str, time: str, value: float) -> Cell:
    noise = _noise(wording, time)
    if math.isnan(value):
        return Cell(wording.decimal(value), "none", f"{layer}, {noise}: {wording('heat.invalid')}")
    title = wording("heat.cell", layer=layer, noise=noise, value=wording.decimal(value, 2))
    return Cell(wording.decimal(value), str(sum(value >= bound for bound in SHADES)), title)


def _noise(wording: Wording, time: str) -> str:
    level, _, told = time.partition(", ")
    try:
        percent = f"{100 * float(level):.0f}"
    except (ValueError, OverflowError):
        return printable(time, 40)
    noise = wording("heat.noise", percent=percent)
    return wording("heat.named", noise=noise) if told == "named" else noise


def _legend(wording: Wording) -> tuple[tuple[str, str], ...]:
    between = [f"{wording.short(low)}–{wording.short(high)}" for low, high in pairwise(SHADES)]
    texts = [wording("heat.below"), *between, wording("heat.above")]
    return tuple((str(shade), text) for shade, text in enumerate(texts))
