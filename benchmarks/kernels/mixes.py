"""Layer mixes of real models, read from `data/mixes.json`, and tensors of those shapes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path

import torch
from torch import Tensor

DATA = Path(__file__).parent / "data" / "mixes.json"

Pairs = list[tuple[Tensor, Tensor]]
"""(base, adapted) tensors of equal shape [rows, ...]."""

CHANGE = 0.05
"""How far the adapted activations are from the base's, relative to their size."""


@dataclass(frozen=True)
class Layer:
    """A kind of layer: the name of the first, the shape of one row, how many there are."""

    name: str
    shape: tuple[int, ...]
    count: int


@dataclass(frozen=True)
class Projection:
    """A kind of attention projection, and the tokens it sees per picture."""

    name: str
    d_in: int
    d_out: int
    tokens: int
    count: int


@dataclass(frozen=True)
class Mix:
    """The hooked layers of one forward pass with `rows` pairs of rows.

    Attributes:
        name: model and rows, as "sdxl x 2".
        layers: kinds of layers, in order of first appearance.
        rows: base rows in the batch; there are as many adapted ones.
    """

    name: str
    layers: tuple[Layer, ...]
    rows: int

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """[rows, ...] of every layer."""
        return [(self.rows, *layer.shape) for layer in self.layers for _ in range(layer.count)]

    def pair_bytes(self, dtype: torch.dtype) -> int:
        """Bytes of all pairs: what has to be read once."""
        return 2 * sum(map(prod, self.shapes)) * dtype.itemsize

    def head(self, shapes: int) -> Mix:
        """The same mix with at most one layer of each of the first `shapes` kinds."""
        kept = tuple(Layer(layer.name, layer.shape, 1) for layer in self.layers[:shapes])
        return Mix(f"{self.name}, {len(kept)} layers", kept, self.rows)


@cache
def _data() -> dict[str, dict[str, list[list[object]]]]:
    content = json.loads(DATA.read_text())
    return {name: lists for name, lists in content.items() if isinstance(lists, dict)}


def models() -> tuple[str, ...]:
    """Names of the models in the file."""
    return tuple(_data())


def mix(model: str, rows: int = 1) -> Mix:
    """The layers of `model` for a batch of `rows` base and `rows` adapted rows."""
    layers = tuple(
        Layer(str(name), tuple(shape), int(count))  # type: ignore[arg-type,call-overload]
        for name, shape, count in _data()[model]["layers"]
    )
    return Mix(f"{model} x {rows}", layers, rows)


def projections(model: str) -> tuple[Projection, ...]:
    """The attention projections of `model`."""
    return tuple(
        Projection(str(name), *map(int, numbers))  # type: ignore[arg-type]
        for name, *numbers in _data()[model]["projections"]
    )


def random_pairs(
    shapes: Sequence[tuple[int, ...]],
    dtype: torch.dtype,
    device: torch.device,
    seed: int = 0,
) -> Pairs:
    """Pairs of normal numbers; never zeros, on which hardware is faster than on real data.

    Base and adapted rows are halves of one tensor, as in a batch that runs both.
    """
    generator = torch.Generator(device).manual_seed(seed)
    made = []
    for shape in shapes:
        rows = shape[0]
        both = torch.empty((2 * rows, *shape[1:]), dtype=dtype, device=device)
        both.normal_(generator=generator)
        # in place and row by row, so that a list of gigabytes needs no second one
        for row in range(rows):
            noise = torch.empty_like(both[row]).normal_(generator=generator)
            both[rows + row] = both[row] + CHANGE * noise
        made.append((both[:rows], both[rows:]))
    return made
