"""What an adapter does beside what it does loudest.

Whoever merges a forbidden adapter with a loud harmless one makes a file of which nearly all is
harmless: every measure of the whole is drowned. But what two adapters do lies in different
directions of a layer, and where the loud ones are turned down the others are heard. So an adapter
is screened again as `D (I + D^T D / t^2)^-1` in place of `D`, layer by layer: a singular value s
becomes `s / (1 + (s / t)^2)`, which is s far below t and ever less far above it. The function is
smooth, so nothing hangs on the order of singular values that are nearly equal, and it is the same
for every factorisation of D. With `t = share * sqrt(sum s^4 / sum s^2)` it knows no strength.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from loragate_server.adapter import algebra
from loragate_server.adapter.adapter import Adapter, ModuleRef
from loragate_server.adapter.delta import LayerShape, WeightDelta
from loragate_server.adapter.reference import Strength
from loragate_server.audit.products import factors_of
from loragate_server.audit.response import Adaptation
from loragate_server.models.base import BaseModel

SHARES = (1 / 4, 1 / 16)
"""Of the loudness of a layer, from where on its directions are turned down. With these, 35 of 40
files are not ALLOW that hold a forbidden adapter and a harmless one of one to sixteen times its
strength; see `benchmarks.attacks.merged`."""

MOST_NUMBERS = 1 << 27
"""Of plain factors whose changes are turned down at one time: about a gigabyte of new ones, while
those of hundreds of adapters of a large model would be more than a device has."""

_AT_ONCE = 1 << 22
"""Numbers of changes of one shape that are turned down in one go, in doubles."""


def held_at_once(adaptations: Sequence[Adaptation]) -> Iterator[slice]:
    """The adaptations in their order, in groups that have room together; one alone always has."""
    start = held = 0
    for number, adaptation in enumerate(adaptations):
        more = sum(_numbers(delta) for one, _ in adaptation for delta in one.deltas.values())
        if number > start and held + more > MOST_NUMBERS:
            yield slice(start, number)
            start, held = number, 0
        held += more
    if adaptations:
        yield slice(start, len(adaptations))


def _numbers(delta: WeightDelta) -> int:
    """Of its factors; a change that is none is worked out layer by layer and holds nothing."""
    return delta.down.numel() + delta.up.numel() if isinstance(delta, algebra.LowRank) else 0


def quieter(base: BaseModel, adaptation: Adaptation) -> list[Adapter]:
    """Adapters that are active together as one, once for each of `SHARES`; full strength is meant.

    Args:
        base: the base model.
        adaptation: without new words.

    Returns:
        Fewer where nothing is left: of adapters that change nothing.
    """
    made: list[dict[ModuleRef, WeightDelta]] = [{} for _ in SHARES]
    plain: dict[tuple[torch.Size, torch.Size], list[_Plain]] = {}
    for ref in dict.fromkeys(ref for adapter, _ in adaptation for ref in adapter.deltas):
        parts = [
            (adapter.deltas[ref], _strength(base, ref, strength))
            for adapter, strength in adaptation
            if ref in adapter.deltas
        ]
        if all(isinstance(delta, algebra.LowRank) and delta.mid is None for delta, _ in parts):
            factors = [factors_of(base, ref, delta, strength) for delta, strength in parts]
            down = torch.cat([one.down for one in factors])
            up = torch.cat([one.up.double() * one.scale for one in factors], dim=1)
            plain.setdefault((down.shape, up.shape), []).append(_Plain(ref, down, up))
        else:
            for deltas, share in zip(made, SHARES, strict=True):
                deltas[ref] = _Dense(tuple(parts), share)
    for alike in plain.values():
        most = max(1, _AT_ONCE // (alike[0].down.numel() + alike[0].up.numel()))
        for start in range(0, len(alike), most):
            some = alike[start : start + most]
            for deltas, found in zip(made, _of_plain(some), strict=True):
                deltas |= found
    return [replace(adaptation[0][0], deltas=deltas) for deltas in made if deltas]


@dataclass(frozen=True)
class _Plain:
    """A change that is `up @ down`."""

    ref: ModuleRef
    down: Tensor
    up: Tensor


def _of_plain(layers: Sequence[_Plain]) -> list[dict[ModuleRef, WeightDelta]]:
    """Changes of one shape, for each of `SHARES`; without layers that are not changed.

    A change is taken as orthonormal columns and rows and a small middle, in doubles. The middle is
    a product of triangular factors, so ranks that cancel each other are gone in it.
    """
    left, over = torch.linalg.qr(torch.stack([one.up for one in layers]))
    right, under = torch.linalg.qr(torch.stack([one.down for one in layers]).double().mT)
    middle, down = over @ under.mT, right.mT.float().contiguous()
    found: list[dict[ModuleRef, WeightDelta]] = []
    for share in SHARES:
        up = (left @ _turned_down(middle, share)).float().contiguous()
        there = up.flatten(1).any(1).tolist()
        pairs = zip(layers, down, up, there, strict=True)
        found.append(
            {one.ref: algebra.LowRank(down, up, 1.0) for one, down, up, left in pairs if left}
        )
    return found


@dataclass(frozen=True)
class _Dense(algebra.ThroughWeight):
    """A sum of changes, each at its strength, of which the loud directions are turned down.

    As large as its layer, and so worked out when it is wanted.
    """

    parts: tuple[tuple[WeightDelta, float], ...]
    share: float

    def dense(self, layer: LayerShape, strength: float) -> Tensor:
        """Times the strength, which is 1: that of each part is in it."""
        total = torch.stack([part.dense(layer, own) for part, own in self.parts]).sum(0)
        return _turned_down(total.flatten(1), self.share).reshape(total.shape) * strength


def _strength(base: BaseModel, ref: ModuleRef, strength: Strength) -> float:
    own = ref.component == base.denoiser_component
    return strength.denoiser if own else strength.text_encoder


def _turned_down(change: Tensor, share: float) -> Tensor:
    """See the module; [..., rows, columns]. Nothing of changes that are zero or not finite."""
    size = change.abs().amax((-2, -1), keepdim=True)
    there = (size > 0) & size.isfinite()
    # squares of very large and very small numbers are none
    scaled = torch.where(there, change / size, 0.0)
    if wide := scaled.shape[-2] < scaled.shape[-1]:
        scaled = scaled.mT
    square = scaled.mT @ scaled
    energy = square.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
    loudness = square.square().sum((-2, -1), keepdim=True) / energy
    eye = torch.eye(square.shape[-1], dtype=square.dtype, device=square.device)
    limit = torch.where(there, share**2 * loudness, 1.0)
    small: Tensor = torch.linalg.solve(eye + square / limit, scaled.mT)
    return torch.where(there, (small if wide else small.mT) * size, 0.0)
