"""Whether the change of a layer is the same in the precisions that image servers compute in.

Factors may be made of large components that cancel in float32 and not once they are rounded, or
too small or too large for float16. What such a layer does depends on the server's settings. Where
factors are exact in half precision and what cancels is larger still, float32 itself does not hold
the rest of it any more, and nor would anything that is measured here.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

import torch
from torch import Tensor

from loragate_server.adapter.algebra import Kronecker
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


def same_in_half(down: Tensor, up: Tensor, weight: Tensor, scale: float) -> bool:
    """Whether scale * up @ down is what float32 makes of it, and with rounded factors as well.

    Norms are estimated with random inputs that depend on the factors themselves, so that these
    cannot be made for them.

    Args:
        down: [r, ...], float32.
        up: [out, r, ...], float32.
        weight: of the layer.
        scale: the largest that any loader applies.
    """
    flat_down, flat_up = down.flatten(1), up.flatten(1)
    digest = hashlib.sha256(flat_down.cpu().contiguous().numpy().tobytes()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    probes = torch.randn(flat_down.shape[1], _PROBES, generator=generator).to(down.device)
    exact = flat_up @ (flat_down @ probes)
    apiece = float(flat_up.double().norm(dim=0) @ flat_down.double().norm(dim=1))
    if not apiece * _FLOAT32 <= _may_lose(float(exact.norm()) / _PROBES**0.5, weight, scale):
        return False
    allowed = _allowed(float(exact.norm()), weight, scale, _PROBES**0.5)
    for half in _HALVES:
        rounded = flat_up.to(half).float() @ (flat_down.to(half).float() @ probes)
        if not float((rounded - exact).norm()) <= allowed:
            return False
    return True


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
    return True


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
