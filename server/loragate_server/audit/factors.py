"""Adapters as a calibration keeps them: small enough to stay, true enough to be measured again.

A concept that comes later has to be compared with what harmless adapters do to it, and nobody
should have to fetch their files for that. A few projections would not do: what a gradient of rank
4 finds in a layer is far below the error of a sketch. So the change of every layer is kept as its
leading singular directions in `_LEVELS` steps per row (ADR 23 has what that costs).
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from loragate_kernels.lora_response import LowRank
from loragate_server.adapter import algebra
from loragate_server.adapter.adapter import Adapter, KeyCoverage, ModuleRef
from loragate_server.adapter.delta import WeightDelta
from loragate_server.audit.products import factors_of
from loragate_server.models.apply import layer_shape
from loragate_server.models.base import BaseModel

_LEVELS = 31
"""Steps on either side of zero: 6 bits before they are packed."""
_NEGLIGIBLE = 0.05
"""Share of a layer's change (Frobenius norm) that may be left out."""

FORMAT = "kept"
"""`Adapter.format` of an adapter that was kept."""


class NotKeptError(Exception):
    """An adapter cannot be kept; the message says why."""


@dataclass(frozen=True)
class Factors:
    """The change of one adapter at full strength.

    Attributes:
        layers: that it changes, in the order in which everything else has them.
        ranks: int32 [layers].
        codes: uint8, packed: int8 of every layer one after the other, first [rank, out], then
            [rank, in * kh * kw].
        scales: float32, one per row of the codes.
    """

    layers: tuple[ModuleRef, ...]
    ranks: Tensor
    codes: Tensor
    scales: Tensor

    @property
    def nbytes(self) -> int:
        """Bytes of the numbers, as they are kept."""
        return self.codes.nbytes + self.scales.nbytes + self.ranks.nbytes


def require_keepable(adapter: Adapter) -> None:
    """Refuses what cannot be kept.

    Raises:
        NotKeptError: the adapter changes biases.
    """
    for delta in adapter.deltas.values():
        if algebra.changed_bias(delta) is not None:
            raise NotKeptError(f"adapter {adapter.sha256[:12]} changes biases")


def factors_to_keep(base: BaseModel, adapter: Adapter) -> Factors:
    """Brings an adapter to the form in which it is kept.

    Raises:
        NotKeptError: it changes biases.
    """
    require_keepable(adapter)
    ranks, rows, scales = [], [], []
    for ref, delta in adapter.deltas.items():
        left, right = _leading(factors_of(base, ref, delta, 1.0))
        ranks.append(len(left))
        for side in (left, right):
            scale = side.abs().amax(1).clamp_min(1e-30) / _LEVELS
            rows.append((side / scale[:, None]).round().to(torch.int8).flatten())
            scales.append(scale.float())
    data = zlib.compress(torch.cat(rows).numpy().tobytes(), 9)
    return Factors(
        tuple(adapter.deltas),
        torch.tensor(ranks, dtype=torch.int32),
        torch.frombuffer(bytearray(data), dtype=torch.uint8),
        torch.cat(scales),
    )


def adapter_of(base: BaseModel, sha256: str, kept: Factors) -> Adapter:
    """The adapter again, for `screen` and `respond`.

    Raises:
        ValueError: the numbers do not fit the base model's layers.
    """
    data = zlib.decompress(kept.codes.numpy().tobytes())
    codes = torch.from_numpy(np.frombuffer(data, dtype=np.int8).copy())
    deltas: dict[ModuleRef, WeightDelta] = {}
    at, row = 0, 0
    for ref, rank in zip(kept.layers, kept.ranks.tolist(), strict=True):
        weight = layer_shape(base.components[ref.component].get_submodule(ref.module)).weight
        sides = []
        for width in (len(weight), weight[0].numel()):
            side = codes[at : at + rank * width].reshape(rank, width).float()
            sides.append((side * kept.scales[row : row + rank, None]).to(weight.device))
            at, row = at + rank * width, row + rank
        if rank:  # else it changes nothing there
            deltas[ref] = _delta(sides[0], sides[1], weight.shape)
    if (at, row) != (len(codes), len(kept.scales)):
        raise ValueError(f"what is kept of adapter {sha256[:12]} does not fit the base model")
    count = len(deltas)
    coverage = KeyCoverage(2 * count, 2 * count, (), count)
    return Adapter(sha256, 0, FORMAT, deltas, coverage, {})


def _delta(left: Tensor, right: Tensor, shape: Sequence[int]) -> WeightDelta:
    """left' right as a layer of this shape has it."""
    ones = (1,) * (len(shape) - 2)
    down = right.reshape(len(right), *shape[1:])
    return algebra.LowRank(down, left.t().contiguous().reshape(shape[0], len(left), *ones), 1.0)


def _leading(change: LowRank) -> tuple[Tensor, Tensor]:
    """The change as left' right, float64 on the CPU: [rank, out] and [rank, in * kh * kw]."""
    up = change.up.double().cpu() * change.scale
    left, upper = torch.linalg.qr(up)
    right, lower = torch.linalg.qr(change.down.double().cpu().t())
    first, values, second = torch.linalg.svd(upper @ lower.t(), full_matrices=False)
    rest = values.square().flip(0).cumsum(0).flip(0)
    count = int((rest > _NEGLIGIBLE**2 * rest[:1]).sum())
    # the root on both sides, so that both are rounded alike
    root = values[:count].sqrt()
    return ((left @ first[:, :count]) * root).t(), (second[:count] * root[:, None]) @ right.t()
