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
"""Of the loudness of a layer, from where on its directions are turned down. Forbidden adapters in
one file with a harmless one of twice to sixteen times its strength are found at one of the two; see
`benchmarks.attacks.merged`."""


def quieter(base: BaseModel, adaptation: Adaptation) -> list[Adapter]:
    """Adapters that are active together as one, once for each of `SHARES`; full strength is meant.

    Args:
        base: the base model.
        adaptation: without new words.

    Returns:
        Fewer where nothing is left: of adapters that change nothing.
    """
    touched = dict.fromkeys(ref for adapter, _ in adaptation for ref in adapter.deltas)
    cores = {ref: _core(base, ref, adaptation) for ref in touched}
    found = []
    for share in SHARES:
        made = {ref: core.turned_down(share) for ref, core in cores.items()}
        deltas = {ref: delta for ref, delta in made.items() if delta is not None}
        if deltas:
            found.append(replace(adaptation[0][0], deltas=deltas))
    return found


@dataclass(frozen=True)
class _Factored:
    """`left @ middle @ right`, with orthonormal columns and rows beside a small middle, float64.

    The middle is a product of triangular factors, so ranks that cancel each other are gone in it.
    """

    left: Tensor
    middle: Tensor
    right: Tensor

    def turned_down(self, share: float) -> WeightDelta | None:
        """The change with its loud directions turned down; None where there is none."""
        small = _turned_down(self.middle, share)
        if small is None:
            return None
        up = (self.left @ small).float().contiguous()
        return algebra.LowRank(self.right.float().contiguous(), up, 1.0)


@dataclass(frozen=True)
class _Dense:
    """A change as large as its layer, which is worked out when it is wanted."""

    parts: tuple[tuple[WeightDelta, float], ...]

    def turned_down(self, share: float) -> WeightDelta | None:
        return _TurnedDown(self.parts, share)


@dataclass(frozen=True)
class _TurnedDown:
    """The sum of changes with its loud directions turned down; only ever screened."""

    parts: tuple[tuple[WeightDelta, float], ...]
    share: float

    @property
    def rank(self) -> int | None:
        """None: it is dense."""
        return None

    def dense(self, layer: LayerShape, strength: float) -> Tensor:
        """The change, at full strength alone."""
        total = torch.stack([part.dense(layer, own) for part, own in self.parts]).sum(0)
        small = _turned_down(total.flatten(1), self.share)
        if small is None:
            return torch.zeros_like(total)
        return small.reshape(total.shape) * strength

    def response(self, module_input: Tensor, layer: LayerShape, strength: float) -> Tensor:
        """Not there: what is turned down is never run."""
        raise NotImplementedError("a change that is turned down is screened, and never run")


def _core(base: BaseModel, ref: ModuleRef, adaptation: Adaptation) -> _Factored | _Dense:
    parts = [
        (adapter.deltas[ref], _strength(base, ref, strength))
        for adapter, strength in adaptation
        if ref in adapter.deltas
    ]
    if any(not isinstance(one, algebra.LowRank) or one.mid is not None for one, _ in parts):
        return _Dense(tuple(parts))
    factors = [factors_of(base, ref, delta, strength) for delta, strength in parts]
    down = torch.cat([one.down.double() for one in factors])
    up = torch.cat([one.up.double() * one.scale for one in factors], dim=1)
    left, over = torch.linalg.qr(up)
    right, under = torch.linalg.qr(down.mT)
    return _Factored(left, over @ under.mT, right.mT)


def _strength(base: BaseModel, ref: ModuleRef, strength: Strength) -> float:
    own = ref.component == base.denoiser_component
    return strength.denoiser if own else strength.text_encoder


def _turned_down(change: Tensor, share: float) -> Tensor | None:
    """See the module; None where nothing is changed, or by numbers that are not finite."""
    size = change.abs().amax() if change.numel() else change.new_zeros(())
    if not bool((size > 0) & size.isfinite()):
        return None
    scaled = change / size  # squares of very large and very small numbers are none
    if wide := scaled.shape[0] < scaled.shape[1]:
        scaled = scaled.mT
    square = scaled.mT @ scaled
    loudness = square.square().sum() / square.diagonal().sum()
    eye = torch.eye(len(square), dtype=square.dtype, device=square.device)
    small: Tensor = torch.linalg.solve(eye + square / (share**2 * loudness), scaled.mT)
    return (small if wide else small.mT) * size
