"""`Layout` and `Meaning`: what a rule is given, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from loragate_server.adapter.adapter import ModuleRef
from loragate_server.intake.factors import FactorGroup
from loragate_server.intake.naming import DOWN, MAGNITUDE, Naming, alpha_prefix
from loragate_server.models.base import BaseModel

SANE_SCALES = (1e-3, 128.0)
"""Scales of ordinary files. An alpha beyond may be read otherwise, or left out, by a loader."""


class LoaderRefusesError(Exception):
    """The loader would not load this file; the message completes "it refuses the file: "."""


class UnknownEffectError(Exception):
    """What the loader would do cannot be told; the message completes "the effect is unknown: "."""


@dataclass(frozen=True)
class Layout:
    """A file whose tensors have been given their layers, and nothing else done to them.

    Attributes:
        base: the base model.
        weights: every tensor that carries weights, by its name in the file.
        alphas: every tensor that holds one alpha, by its name in the file.
        naming: where the tensors belong; converted as if every alpha were its layer's rank, so
            that no scale is in them.
        metadata: `lora_adapter_metadata` of the header, parsed; None without one.
        header: the header's metadata as it stands.
        config: the `adapter_config.json` beside the file, parsed; None without one.
        folder: the component that an adapter saved by peft is of; None where peft did not save it.
        order: the names of all tensors as the file has them; a loader may look at the first alone.
        groups: factors of LoHa, LoKr and Tucker LoRA, each with the tensors that belong together.
    """

    base: BaseModel
    weights: Mapping[str, Tensor]
    alphas: Mapping[str, Tensor]
    naming: Naming
    metadata: Mapping[str, Any] | None = None
    header: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] | None = None
    folder: str | None = None
    order: tuple[str, ...] = ()
    groups: tuple[FactorGroup, ...] = ()

    def prefix_of(self, ref: ModuleRef) -> str | None:
        """What the names of a layer's tensors have in common; None where they came from several."""
        names = self.naming.sources.get((ref, DOWN), frozenset())
        prefixes = {alpha_prefix(name) for name in names}
        return prefixes.pop() if len(prefixes) == 1 else None

    def rank_of(self, ref: ModuleRef) -> int:
        """The inner dimension of a plain layer; 0 where it has none."""
        return self.naming.rank_of(ref)

    def has_magnitude(self, ref: ModuleRef) -> bool:
        """Whether a plain layer has a DoRA magnitude."""
        return MAGNITUDE in self.naming.parts[ref]


@dataclass(frozen=True)
class LayerScale:
    """What a loader does with one layer's plain factors.

    Attributes:
        scale: up @ down is multiplied by it.
        dora: whether it applies the layer's magnitude; else one that is there is left alone.
        bias: whether it adds a bias that is there.
    """

    scale: float
    dora: bool = False
    bias: bool = False


@dataclass(frozen=True)
class Meaning:
    """What a file means to a loader.

    Attributes:
        layers: what it does with the layers of plain factors that it loads.
        groups: scale of the LoHa, LoKr and Tucker layers that it loads.
        passed_over: layers of the file that it knowingly leaves alone.
        naming: where it has the tensors belong by names of its own; None where as `Layout.naming`.
        left_out: the tensors that it knowingly leaves alone, whatever layers they are for.
    """

    layers: Mapping[ModuleRef, LayerScale]
    groups: Mapping[ModuleRef, float]
    passed_over: frozenset[ModuleRef] = frozenset()
    naming: Naming | None = None
    left_out: frozenset[str] = frozenset()

    def passed_over_of(self, base: BaseModel) -> frozenset[ModuleRef]:
        """What is passed over and there: of a layer that the model lacks nobody knows anything."""
        known = base.adaptable_modules().keys()
        return frozenset(ref for ref in self.passed_over if (ref.component, ref.module) in known)

    def unaccounted(self, layout: Layout, settled: Set[ModuleRef]) -> tuple[str, ...]:
        """Names of the tensors that reach no layer or an unsettled one, and are not left out."""
        naming = self.naming or layout.naming
        reached: dict[str, list[bool]] = {}
        for (ref, _), names in naming.sources.items():
            for name in names:
                reached.setdefault(name, []).append(ref in settled)
        for ref, (group, _) in naming.stacked.items():
            # a layer that has plain factors, too, is built of these alone
            for name in group.names:
                reached.setdefault(name, []).append(ref in settled and ref not in naming.parts)
        return tuple(
            name
            for name in layout.weights
            if name not in self.left_out and not all(reached.get(name, [False]))
        )

    @property
    def sane(self) -> bool:
        """Whether every scale is one that ordinary files have."""
        scales = [*(one.scale for one in self.layers.values()), *self.groups.values()]
        return all(SANE_SCALES[0] <= scale <= SANE_SCALES[1] for scale in scales)


Rule = Callable[[Layout], Meaning]
"""Answers, or raises `LoaderRefusesError` or `UnknownEffectError`."""
