"""Numbers from the weights alone: norms and spectra, or a fixed random projection."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from benchmarks.audit.alternatives.tools import Tools
from benchmarks.audit.derive import Subject
from loragate_server.adapter.adapter import ModuleRef
from loragate_server.models.apply import layer_shape

PROJECTED = 256


def changes(tools: Tools, subject: Subject) -> dict[ModuleRef, Tensor]:
    """W' - W per layer, files that are loaded together added up."""
    modules = tools.base.adaptable_modules()
    found: dict[ModuleRef, Tensor] = {}
    for adapter, strength in subject.read(tools.base):
        for ref, delta in adapter.deltas.items():
            text = ref.component != tools.base.denoiser_component
            shape = layer_shape(modules[ref.component, ref.module])
            dense = delta.dense(shape, strength.text_encoder if text else strength.denoiser)
            found[ref] = found[ref] + dense if ref in found else dense
    return found


def statistics_of(layers: Mapping[ModuleRef, Tensor]) -> np.ndarray:
    """Mean, spread and range over layers of norm, top singular value, its share, and entropy."""
    rows = []
    for change in layers.values():
        values = torch.linalg.svdvals(change.flatten(1).float())
        shares = values.square() / values.square().sum().clamp_min(1e-30)
        entropy = -(shares * shares.clamp_min(1e-30).log()).sum()
        norm, top = values.norm().clamp_min(1e-12).log(), values[0].clamp_min(1e-12).log()
        rows.append([float(norm), float(top), float(shares[0]), float(entropy)])
    table = np.array(rows)
    parts = [table.mean(0), table.std(0), table.min(0), table.max(0), np.median(table, 0)]
    return np.concatenate(parts)


class WeightStatistics:
    """20 numbers per adapter."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    def features(self, subject: Subject) -> np.ndarray:
        """float64 [20]."""
        return statistics_of(changes(self._tools, subject))


class RandomProjection:
    """The attention layers' changes, each times its own fixed random matrix, added up."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._matrices: dict[str, Tensor] = {}
        for (component, name), module in tools.base.adaptable_modules().items():
            if component == tools.base.denoiser_component and ".attn" in name:
                weight = layer_shape(module).weight
                # seeded by name, so that a layer is projected alike in every run
                generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
                matrix = torch.randn((PROJECTED, weight.numel()), generator=generator)
                self._matrices[name] = matrix

    def features(self, subject: Subject) -> np.ndarray:
        """float64 [256]; zeros for an adapter that changes no attention layer."""
        total = torch.zeros(PROJECTED)
        for ref, change in changes(self._tools, subject).items():
            if (
                ref.component == self._tools.base.denoiser_component
                and ref.module in self._matrices
            ):
                total += self._matrices[ref.module] @ change.flatten().float()
        return total.double().numpy()
