"""Sketches: a thousand numbers that tell whether two adapters change a model alike.

Per layer, 64 random projections u^T dW v with u and v of signs, added up at 64 of 1,024 places.
The inner product of two sketches is, on average, that of the weight changes themselves, summed
over the layers (Johnson-Lindenstrauss for rank-one projections: arXiv 1312.4626, lemma 2). So it
is the same for any factorisation, and nearly for any rounding, of the same change; its error for
two changes of norm 1 is about 1 / sqrt(1,024). The signs come from the names of the layers by
SHAKE-256, so that sketches of other days, machines and versions of libraries can be compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from loragate_server.adapter.adapter import Adapter, ModuleRef
from loragate_server.audit.evidence import SKETCH_VERSION
from loragate_server.audit.screen import factors_of
from loragate_server.audit.uses import Member
from loragate_server.models.base import BaseModel

DIMENSIONS = 1024
_PER_LAYER = 64


@dataclass(frozen=True)
class _Signs:
    """The projections of one layer.

    Attributes:
        left: int8 [64, out], right: int8 [64, in]: signs.
        places: int64 [64], where the projections are added up.
    """

    left: Tensor
    right: Tensor
    places: Tensor


def sketches_of(base: BaseModel, members: Iterable[Member]) -> tuple[tuple[bytes, ...], ...]:
    """The sketches of several files, for each of which loaders may have several readings."""
    return tuple(
        tuple(dict.fromkeys(sketch_of(base, reading) for reading in member.readings))
        for member in members
    )


def sketch_of(base: BaseModel, adapter: Adapter) -> bytes:
    """The sketch of an adapter at strength 1.

    Returns:
        Little-endian float32 [1024]; all 0 for an adapter that changes nothing, or whose numbers
        are not finite.
    """
    found = torch.zeros(DIMENSIONS)
    groups: dict[tuple[int, int, int], list[tuple[_Signs, Tensor, Tensor]]] = {}
    for ref, delta in adapter.deltas.items():
        change = factors_of(base, ref, delta, 1.0)
        down, up = change.down.float(), change.up.float() * change.scale
        key = (len(up), down.shape[1], len(down))
        groups.setdefault(key, []).append((_signs(ref, len(up), down.shape[1]), down, up))
    for alike in groups.values():
        left = torch.stack([signs.left for signs, _, _ in alike]).to(alike[0][2])
        right = torch.stack([signs.right for signs, _, _ in alike]).to(alike[0][1])
        ups = torch.stack([up for _, _, up in alike])
        downs = torch.stack([down for _, down, _ in alike])
        projected = ((left @ ups) * (right @ downs.mT)).sum(2)
        places = torch.cat([signs.places for signs, _, _ in alike])
        found.index_add_(0, places, projected.flatten().cpu() / _PER_LAYER**0.5)
    if not torch.isfinite(found).all():
        found.zero_()
    return np.asarray(found, dtype="<f4").tobytes()


@lru_cache(maxsize=8192)
def _signs(ref: ModuleRef, d_out: int, d_in: int) -> _Signs:
    """Made from the layer's name alone."""
    count = _PER_LAYER * (d_out + d_in)
    name = f"loragate sketch {SKETCH_VERSION}\n{ref.component}\n{ref.module}\n{d_out}x{d_in}"
    data = hashlib.shake_256(name.encode()).digest(-(-count // 8) + 4 * _PER_LAYER)
    places = np.frombuffer(data[: 4 * _PER_LAYER], dtype="<u4").astype(np.int64) % DIMENSIONS
    bits = np.unpackbits(np.frombuffer(data[4 * _PER_LAYER :], dtype=np.uint8))[:count]
    signs = torch.from_numpy(bits.astype(np.int8) * 2 - 1)
    split = _PER_LAYER * d_out
    return _Signs(
        signs[:split].reshape(_PER_LAYER, d_out),
        signs[split:].reshape(_PER_LAYER, d_in),
        torch.from_numpy(places),
    )
