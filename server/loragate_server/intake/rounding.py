"""Whether the change of a layer is the same in the half precisions that image servers compute in.

Factors may be made of large components that cancel in float32 and not once they are rounded, or
too small or too large for float16. What such a layer does depends on the server's settings.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

_HALVES = (torch.float16, torch.bfloat16)
_PROBES = 8
_APART = 0.05
"""Relative difference that counts; that of trained adapters is a tenth of it."""
_NEGLIGIBLE = 1e-4
"""Differences below this part of the layer's own weight change nothing."""


def same_in_half(down: Tensor, up: Tensor, weight: Tensor, scale: float) -> bool:
    """Whether scale * up @ down stays what it is when its factors are rounded.

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
    least = _NEGLIGIBLE * float(weight.detach().float().norm()) * _PROBES**0.5
    allowed = max(_APART * float(exact.norm()), least / max(abs(scale), 1e-30))
    for half in _HALVES:
        rounded = flat_up.to(half).float() @ (flat_down.to(half).float() @ probes)
        if not float((rounded - exact).norm()) <= allowed:
            return False
    return True
