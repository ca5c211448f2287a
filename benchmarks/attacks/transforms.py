"""Transformations of an adapter that have no effect, or next to none, on what it does.

A verdict must not depend on any of them. Each takes and gives factors; `EXACT` ones change the
product by rounding alone, `NEGLIGIBLE` ones by a thousandth of what a layer does, or less.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor

from benchmarks.attacks.factors import Factors, Shapes, joined

Transform = Callable[[Factors, Shapes, torch.Generator], Factors]


def _each(change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Transform:
    return lambda own, _, __: {name: change(down, up) for name, (down, up) in own.items()}


def _mixed(matrix: Tensor, down: Tensor) -> Tensor:
    return (matrix @ down.flatten(1)).reshape(len(matrix), *down.shape[1:])


def rescaled(own: Factors, _: Shapes, generator: torch.Generator) -> Factors:
    """A times s and B over s, another s in every layer."""
    made = {}
    for name, (down, up) in own.items():
        factor = float(2 ** (12 * torch.rand((), generator=generator) - 6))
        made[name] = (down * factor, up / factor)
    return made


def permuted(own: Factors, _: Shapes, generator: torch.Generator) -> Factors:
    """Rank components in another order."""
    made = {}
    for name, (down, up) in own.items():
        order = torch.randperm(len(down), generator=generator)
        made[name] = (down[order], up[:, order])
    return made


def rotated(own: Factors, _: Shapes, generator: torch.Generator) -> Factors:
    """The rank space turned by a random orthogonal matrix."""
    made = {}
    for name, (down, up) in own.items():
        turn = torch.linalg.qr(torch.randn(len(down), len(down), generator=generator)).Q
        made[name] = (_mixed(turn, down), _mixed(turn, up.transpose(0, 1)).transpose(0, 1))
    return made


def split(own: Factors, _: Shapes, generator: torch.Generator) -> Factors:
    """Every component as two of unequal size in the same direction."""
    made = {}
    for name, (down, up) in own.items():
        share = torch.rand(len(down), generator=generator)
        share = share.reshape(1, -1, *(1 for _ in up.shape[2:]))
        made[name] = joined((down, up * share), (down, up * (1 - share)))
    return made


def cancelling(own: Factors, _: Shapes, generator: torch.Generator) -> Factors:
    """A random product added and subtracted again, as large as the layer's own."""
    made = {}
    for name, (down, up) in own.items():
        extra_down = torch.randn(down.shape, generator=generator) * down.std()
        extra_up = torch.randn(up.shape, generator=generator) * up.std()
        made[name] = joined((down, up), (extra_down, extra_up), (extra_down, -extra_up))
    return made


def _untouched(own: Factors, shapes: Shapes) -> dict[str, tuple[int, ...]]:
    return {name: shape for name, shape in shapes.items() if name not in own}


def _size(own: Factors) -> float:
    """The median Frobenius norm of what the layers are changed by."""
    return median(float((up.flatten(1) @ down.flatten(1)).norm()) for down, up in own.values())


def random_layer(
    shape: tuple[int, ...], norm: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """A random change of rank 2 and of this Frobenius norm."""
    down = torch.randn((2, *shape[1:]), generator=generator)
    up = torch.randn((shape[0], 2, *(1 for _ in shape[2:])), generator=generator)
    made = float((up.flatten(1) @ down.flatten(1)).norm())
    return down, up * (norm / made)


def noise_elsewhere(share: float) -> Transform:
    """Random changes of every untouched layer, `share` of what touched ones are changed by."""

    def transform(own: Factors, shapes: Shapes, generator: torch.Generator) -> Factors:
        size = share * _size(own)
        extra = {
            name: random_layer(shape, size, generator)
            for name, shape in _untouched(own, shapes).items()
        }
        return {**own, **extra}

    return transform


def zero_elsewhere(own: Factors, shapes: Shapes, generator: torch.Generator) -> Factors:
    """Every untouched layer changed by nothing."""
    extra = {}
    for name, shape in _untouched(own, shapes).items():
        down, up = random_layer(shape, 1.0, generator)
        extra[name] = (down, torch.zeros_like(up))
    return {**own, **extra}


def turned_elsewhere(share: float) -> Transform:
    """Untouched layers get a flipped and shrunk copy of a touched one of the same shape."""

    def transform(own: Factors, shapes: Shapes, generator: torch.Generator) -> Factors:
        by_shape = {(up.shape[0], *down.shape[1:]): (down, up) for down, up in own.values()}
        made = dict(own)
        for name, shape in _untouched(own, shapes).items():
            if shape in by_shape:
                down, up = by_shape[shape]
                made[name] = (down, -share * up)
            else:
                made[name] = random_layer(shape, share * _size(own), generator)
        return made

    return transform


def turned_inside(share: float) -> Transform:
    """Every layer and a flipped and shrunk copy of itself."""
    return _each(lambda down, up: joined((down, up), (down, -share * up)))


EXACT: dict[str, Transform] = {
    "written as float32": _each(lambda down, up: (down, up)),
    "A times s, B over s": rescaled,
    "ranks permuted": permuted,
    "ranks split in two": split,
    "ranks doubled, half each": _each(lambda down, up: joined((down, up / 2), (down, up / 2))),
    "rank space rotated": rotated,
    "zero ranks added": _each(
        lambda down, up: joined((down, up), (torch.zeros_like(down), torch.zeros_like(up)))
    ),
    "ranks that cancel added": cancelling,
    "zero layers added": zero_elsewhere,
}
NEGLIGIBLE: dict[str, Transform] = {
    "noise of 1e-6 on untouched layers": noise_elsewhere(1e-6),
    "noise of 1e-3 on untouched layers": noise_elsewhere(1e-3),
    "flipped copies of 1e-3 on untouched layers": turned_elsewhere(1e-3),
    "flipped copies of 1e-6 on untouched layers": turned_elsewhere(1e-6),
    "flipped copies of 1e-3 inside every layer": turned_inside(1e-3),
    "shrunk to 0.999": _each(lambda down, up: (down, 0.999 * up)),
}
TRANSFORMS = EXACT | NEGLIGIBLE
REORDERED = "tensors in another order"
"""A transformation of the file, not of what it holds."""
