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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from loragate_kernels.lora_response import LowRank
from loragate_server.adapter.adapter import Adapter, ModuleRef
from loragate_server.audit.evidence import SKETCH_DIMENSIONS, SKETCH_VERSION
from loragate_server.audit.products import factors_of
from loragate_server.audit.uses import Member
from loragate_server.models.base import BaseModel

_PER_LAYER = 64
_SMALLEST = 1e-44


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
        Little-endian float32 [1024] of the denoiser, and as many of the text encoders where those
        are changed, for each part has a strength of its own. Layers whose numbers are not finite
        count as unchanged: one that the model does not use must not hide the others.
    """
    halves = {True: torch.zeros(SKETCH_DIMENSIONS, dtype=torch.float64)}
    groups: dict[tuple[bool, int, int, int], list[tuple[_Signs, LowRank]]] = {}
    for ref, delta in adapter.deltas.items():
        change = factors_of(base, ref, delta, 1.0)
        rank, d_in = change.down.shape
        of_denoiser = ref.component == base.denoiser_component
        key = (of_denoiser, len(change.up), d_in, rank)
        groups.setdefault(key, []).append((_signs(ref, len(change.up), d_in), change))
    for (of_denoiser, *_, rank), alike in groups.items():
        if rank:
            half = halves.setdefault(
                of_denoiser, torch.zeros(SKETCH_DIMENSIONS, dtype=torch.float64)
            )
            places = torch.cat([signs.places for signs, _ in alike])
            half.index_add_(0, places, _projected(alike).flatten() / _PER_LAYER**0.5)
    made = [halves[half].float() for half in (True, False) if half in halves]
    found = torch.nan_to_num(torch.cat(made), nan=0.0, posinf=0.0, neginf=0.0)
    return np.asarray(found, dtype="<f4").tobytes()


def _projected(alike: Sequence[tuple[_Signs, LowRank]]) -> Tensor:
    """Of layers with equal shapes, float64 [layers, 64]; 0 for one that is not finite."""
    downs = torch.stack([change.down.float() for _, change in alike])
    ups = torch.stack([change.up.float() for _, change in alike])
    # One factor may be as large as the other is small, which changes nothing but overflows here.
    most = [each.abs().amax((1, 2), keepdim=True).clamp_min(_SMALLEST) for each in (ups, downs)]
    left = torch.stack([signs.left for signs, _ in alike]).to(ups)
    right = torch.stack([signs.right for signs, _ in alike]).to(downs)
    even = ((left @ (ups / most[0])) * (right @ (downs / most[1]).mT)).sum(2)
    scales = torch.tensor([[change.scale] for _, change in alike], dtype=torch.float64)
    for each in most:
        scales *= each.reshape(-1, 1).double().cpu()
    projected = even.double().cpu() * scales
    largest = torch.finfo(torch.float32).max / _PER_LAYER
    return torch.where(projected.abs() <= largest, projected, 0.0)


@lru_cache(maxsize=8192)
def _signs(ref: ModuleRef, d_out: int, d_in: int) -> _Signs:
    """Made from the layer's name alone."""
    count = _PER_LAYER * (d_out + d_in)
    name = f"loragate sketch {SKETCH_VERSION}\n{ref.component}\n{ref.module}\n{d_out}x{d_in}"
    data = hashlib.shake_256(name.encode()).digest(-(-count // 8) + 4 * _PER_LAYER)
    places = np.frombuffer(data[: 4 * _PER_LAYER], dtype="<u4").astype(np.int64) % SKETCH_DIMENSIONS
    bits = np.unpackbits(np.frombuffer(data[4 * _PER_LAYER :], dtype=np.uint8))[:count]
    signs = torch.from_numpy(bits.astype(np.int8) * 2 - 1)
    split = _PER_LAYER * d_out
    return _Signs(
        signs[:split].reshape(_PER_LAYER, d_out),
        signs[split:].reshape(_PER_LAYER, d_in),
        torch.from_numpy(places),
    )
