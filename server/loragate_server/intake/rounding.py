"""Whether the change of a layer is the same in the precisions that image servers compute in.

Factors may be made of large components that cancel in float32 and not once they are rounded, or
too small or too large for float16. What such a layer does depends on the server's settings. Where
factors are exact in half precision and what cancels is larger still, float32 itself does not hold
the rest of it any more, and nor would anything that is measured here.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterator
from dataclasses import replace
from itertools import chain

import torch
from torch import Tensor

from loragate_server.adapter.algebra import Hadamard, Kronecker, LowRank
from loragate_server.intake.factors import Change, FactorGroup

_HALVES = (torch.float16, torch.bfloat16)
_PROBES = 8
_APART = 0.05
"""Relative difference that counts; that of trained adapters is a tenth of it."""
_NEGLIGIBLE = 1e-4
"""Differences below this part of the layer's own weight change nothing."""
_FLOAT32 = 2.0**-24
_LOST = 1e-4
"""Part of a change that float32 may lose where components of the factors cancel. Those of trained
adapters are four times as large as what they add up to, which loses a millionth of this."""
_LEAST_LOST = 1e-6
"""What float32 may lose anyway, as a part of the layer's own weight."""


def same_in_half(down: Tensor, up: Tensor, weight: Tensor, scales: Collection[float]) -> bool:
    """Whether scale * up @ down is what float32 makes of it, and with rounded factors as well.

    Norms are estimated with random inputs that depend on both factors, so that neither can be made
    for them: whoever knew them before one was chosen could hide from them what rounding changes.

    Args:
        down: [r, ...], float32.
        up: [out, r, ...], float32.
        weight: of the layer.
        scales: all that loaders apply; some multiply them into a factor before it is rounded.
    """
    flat_down, flat_up = down.flatten(1), up.flatten(1)
    digest = hashlib.sha256()
    for factor in (flat_down, flat_up):
        digest.update(factor.cpu().contiguous().numpy().tobytes())
    generator = torch.Generator().manual_seed(int.from_bytes(digest.digest()[:8], "little") >> 1)
    probes = torch.randn(flat_down.shape[1], _PROBES, generator=generator).to(down.device)
    exact = flat_up @ (flat_down @ probes)
    largest = max(map(abs, scales))
    apiece = float(flat_up.double().norm(dim=0) @ flat_down.double().norm(dim=1))
    if not apiece * _FLOAT32 <= _may_lose(float(exact.norm()) / _PROBES**0.5, weight, largest):
        return False
    allowed = _allowed(float(exact.norm()), weight, largest, _PROBES**0.5)
    folds = sorted({2 * abs(math.frexp(scale)[0]) for scale in scales if scale} - {1.0})
    rounded = [_rounded_products(flat_down, flat_up, probes, half, folds) for half in _HALVES]
    split = _split_products(flat_down, flat_up, probes, {*map(abs, scales)} - {0.0, 1.0})
    return all(float((moved - exact).norm()) <= allowed for moved in chain(*rounded, split))


def _rounded_products(
    down: Tensor, up: Tensor, probes: Tensor, half: torch.dtype, folds: Collection[float]
) -> Iterator[Tensor]:
    """What the inputs become, by each way in which a loader rounds the factors.

    Args:
        down: of a layer.
        up: of the same.
        probes: the inputs.
        half: what the factors are rounded to.
        folds: of the scales that are multiplied into either factor, before they are rounded or
            after, only what is beside a power of two, which changes no digit.
    """
    plain_down, plain_up = down.to(half).float(), up.to(half).float()
    plain = plain_down @ probes
    yield plain_up @ plain
    for fold in folds:
        for before, rounded in ((down, plain_down), (up, plain_up)):
            for now in (before,) if torch.equal(before, rounded) else (before, rounded):
                folded = (now * fold).to(half).float()
                through = plain_up @ (folded @ probes) if before is down else folded @ plain
                yield through / fold


def _split_products(
    down: Tensor, up: Tensor, probes: Tensor, scales: Collection[float]
) -> Iterator[Tensor]:
    """As `_rounded_products` where a scale is shared out to both factors, as diffusers does.

    In float16 alone: there a power of two makes small numbers nothing and large ones infinite.
    """
    for scale in sorted(scales):
        below, above = scale, 1.0
        while below * 2 < above:
            below, above = below * 2, above / 2
        inner = (down * below).half().float() @ probes
        yield (up * above).half().float() @ inner / (below * above)


def group_same_in_half(
    group: FactorGroup, weight: Tensor, scale: float, device: torch.device
) -> bool:
    """As `same_in_half` for LoHa, LoKr and Tucker LoRA, whose changes are compared in whole."""
    if group.kind == "full" or group.out_features is None:
        return True  # nothing is multiplied
    exact = group.rounded(torch.float32, device)
    sizes = {key: value.float().abs() for key, value in group.factors.items()}
    apiece = _norm(replace(group, factors=sizes).rounded(torch.float32, device))
    if not apiece * _FLOAT32 <= _may_lose(_norm(exact), weight, scale):
        return False
    for half in _HALVES:
        apart, whole = _apart(group.rounded(half, device), exact)
        if not apart <= _allowed(whole, weight, scale):
            return False
    return all(
        same_in_half(inner, outer, weight, {share})
        for inner, outer, share in _inner_products(exact, scale)
    )


def _inner_products(change: Change, scale: float) -> Iterator[tuple[Tensor, Tensor, float]]:
    """What a core makes with either of its factors, and the other: a loader rounds the first, too.

    Yields:
        down and up of the product, and by what it counts in the layer.
    """
    for (a, b, core), share in _with_core(change, scale):
        yield torch.einsum("ijkl,jr->irkl", core, b), a.T, share
        yield torch.einsum("ijkl,ip->jpkl", core, a), b.T, share


def _with_core(
    change: Change, scale: float
) -> Iterator[tuple[tuple[Tensor, Tensor, Tensor], float]]:
    """Two factors and the core between them, [r, out], [r, in] and [r, r, kh, kw]."""
    if isinstance(change, LowRank) and change.mid is not None:
        yield (change.up.flatten(1).T, change.down.flatten(1), change.mid), scale
    if isinstance(change, Hadamard):
        for own, other in ((change.first, change.second), (change.second, change.first)):
            if len(own) == 3:
                square = replace(change, first=other, second=other).product()
                yield own, scale * float(square.max()) ** 0.5
    if isinstance(change, Kronecker) and len(change.right) == 3:
        yield change.right, scale * float(change.halves()[0].norm())


def _norm(change: Change) -> float:
    if isinstance(change, Kronecker):
        halves = change.halves()
        return float(_inner(halves, halves) ** 0.5)
    return float(change.product().double().norm())


def _apart(rounded: Change, exact: Change) -> tuple[float, float]:
    """Norm of the difference of two changes, and that of the second."""
    if isinstance(rounded, Kronecker) and isinstance(exact, Kronecker):
        now, was = rounded.halves(), exact.halves()
        whole, new, both = (_inner(a, b) for a, b in ((was, was), (now, now), (now, was)))
        return abs(whole + new - 2 * both) ** 0.5, whole**0.5
    one, other = rounded.product(), exact.product()
    return float((one - other).norm()), float(other.norm())


def _inner(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> float:
    """Inner product of two Kronecker products, neither of which is made."""
    left, right = (
        a.double().flatten() @ b.double().flatten() for a, b in zip(one, other, strict=True)
    )
    return float(left * right)


def _may_lose(exact: float, weight: Tensor, scale: float) -> float:
    least = _LEAST_LOST * float(weight.detach().float().norm())
    return max(_LOST * exact, least / max(abs(scale), 1e-30))


def _allowed(exact: float, weight: Tensor, scale: float, probes: float = 1.0) -> float:
    least = _NEGLIGIBLE * float(weight.detach().float().norm()) * probes
    return max(_APART * exact, least / max(abs(scale), 1e-30))
