"""Concept gradients: how each layer's weights would have to move for a concept to be learned.

To first order an adapter changes the denoising loss L_c of a concept by <dL_c/dW, dW>, summed over
layers: no forward pass per adapter. After one epoch of plain gradient descent a task vector equals
the negative gradient up to its length (arXiv 2508.16082), so what has learned the concept points
against it. The loss is taken as the mean logarithm over rows, so that easy and hard pictures
weigh alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from loragate_kernels.lora_response import LayerDirections
from loragate_server.adapter.adapter import ModuleRef
from loragate_server.concepts.building.dense import of_rows
from loragate_server.concepts.building.stratum import Rows, key, layers_of
from loragate_server.concepts.cache import TensorCache
from loragate_server.concepts.concept import Concept
from loragate_server.concepts.library import ConceptLibrary
from loragate_server.concepts.probes import (
    ProbePlan,
    ProbeSet,
    build_probes,
)
from loragate_server.models.base import BaseModel
from loragate_server.progress import Report, Turns, at_once, silent

_METHOD = "2"
"""Raised when the same plan gives other gradients, so that cached ones are not used any more."""


@dataclass(frozen=True)
class Stratum:
    """Rows that belong together: one time, one kind of prompt.

    Attributes:
        time: noise level, as a share of the schedule.
        named: whether the rows are told the concept's own prompt.
    """

    time: float
    named: bool


@dataclass(frozen=True)
class GradientPlan:
    """How gradients are made and kept.

    Attributes:
        plans: pictures and times of the rows; each time of each plan gives a gradient of its own.
            All have the same neutral bank. Rows cost time once, when gradients are made: 12 find
            clearly more than 4, and 24 no more than 12. Under the name, where adapters that
            learned from other pictures show most, one more time finds more.
        rank: kept per layer, concept and stratum; `python -m benchmarks.audit.ranks` measures what
            a lower one costs.
    """

    plans: tuple[ProbePlan, ...] = (
        ProbePlan(pictures=12, times=(0.16, 0.75), neutral=64),
        ProbePlan(pictures=12, times=(0.3, 0.6), neutral=64, named=True),
    )
    rank: int = 4

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"rank must be at least 1, not {self.rank}")
        if len({plan.neutral for plan in self.plans}) != 1:
            raise ValueError("plans must be one or more, all with the same neutral bank")

    @property
    def strata(self) -> tuple[Stratum, ...]:
        """What each gradient of a concept stands for, in order."""
        return tuple(Stratum(time, plan.named) for plan in self.plans for time in plan.times)


@dataclass(frozen=True)
class ConceptGradients:
    """The gradients of one concept library on one base model.

    Every gradient has unit Frobenius norm per layer before it is cut to its rank, so that layers
    with large gradients do not drown the others. Directions are ordered by concept, then stratum.

    Attributes:
        concepts: every forbidden concept, then the neutral bank; both ordered by id.
        strata: one gradient each.
        norms: layer to the Frobenius norms that the gradients had, float32 [concepts * strata], in
            nats per unit of weight.
        layers: layer to its directions, float16; convolutions are flattened to
            [out, in * kh * kw].
    """

    base_digest: str
    library_digest: str
    plan: GradientPlan
    concepts: tuple[Concept, ...]
    strata: tuple[Stratum, ...]
    norms: Mapping[ModuleRef, Tensor]
    layers: Mapping[ModuleRef, LayerDirections]

    @property
    def forbidden_count(self) -> int:
        """How many of the leading concepts are forbidden."""
        return sum(concept.role == "forbidden" for concept in self.concepts)

    @cached_property
    def steepness(self) -> float:
        """Average norm of the neutral gradients: nats per unit of weight, layers alike."""
        first = self.forbidden_count * len(self.strata)
        every = torch.cat([norm[first:].double() for norm in self.norms.values()])
        return float(every.mean())

    @property
    def nbytes(self) -> int:
        """Memory that the directions take."""
        return sum(layer.nbytes for layer in self.layers.values())


def build_gradients(
    library: ConceptLibrary,
    base: BaseModel,
    cache_dir: Path,
    report: Report = silent,
    plan: GradientPlan | None = None,
    turns: Turns = at_once,
) -> ConceptGradients:
    """Computes the gradients; those of concepts that were seen before come from the cache.

    Costs one forward and one backward pass per row, once; a gradient is cut to its rank as soon as
    it exists, so memory holds the dense gradients of one concept at one time.

    Args:
        library: the open concept library.
        base: the base model; its weights are as before when this returns or raises.
        cache_dir: folder for one file per concept; created when missing.
        report: told the stage "gradients" and the share of concepts done. What it raises ends
            the work.
        plan: the default plan when None.
        turns: when the base model is free; a gradient of one concept at one time is made in one.

    Raises:
        NoDecisionError: CONCEPT_PICTURES_INVALID; DISK_FULL when the cache cannot be written.
    """
    plan = plan or GradientPlan()
    probes = [build_probes(library, base, cache_dir, report, each, turns) for each in plan.plans]
    cache = TensorCache(cache_dir, "gradients", base, repr(plan), _METHOD)
    pictures = max(each.pictures for each in plan.plans)
    stored = cache.each(
        [concept.shown(pictures) for concept in probes[0].concepts],
        lambda concept: _of_concept(base, probes, concept, plan.rank, turns),
        report,
    )
    return assemble(base, probes, plan, _joined(stored))


def assemble(
    base: BaseModel, probes: Sequence[ProbeSet], plan: GradientPlan, stored: Mapping[str, Tensor]
) -> ConceptGradients:
    """Puts what `compute` made where the base model is, ready for `inner_products`."""
    lengths = (plan.rank,) * (len(probes[0].concepts) * len(plan.strata))
    refs = layers_of(base)
    layers = {
        ref: LayerDirections.low_rank(
            stored[key("left", ref)].to(base.device),
            stored[key("right", ref)].to(base.device),
            lengths,
        )
        for ref in refs
    }
    return ConceptGradients(
        base.digest,
        probes[0].library_digest,
        plan,
        probes[0].concepts,
        plan.strata,
        {ref: stored[key("norm", ref)].to(base.device) for ref in refs},
        layers,
    )


def compute(
    base: BaseModel, probes: Sequence[ProbeSet], rank: int, report: Report = silent
) -> dict[str, Tensor]:
    """The gradients by layer, on the CPU.

    Returns:
        left.LAYER float16 [concepts * strata * rank, out], right.LAYER float16 [..., in], and
        norm.LAYER float32 [concepts * strata].
    """
    count, parts = len(probes[0].concepts), []
    for concept in range(count):
        report("gradients", concept / count)
        parts.append(_of_concept(base, probes, concept, rank, at_once))
    report("gradients", 1.0)
    return _joined(parts)


def _joined(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The gradients of several concepts as one; empties `parts`, which would be there twice."""
    names = list(parts[0])
    return {name: torch.cat([part.pop(name) for part in parts]) for name in names}


def _of_concept(
    base: BaseModel, probes: Sequence[ProbeSet], concept: int, rank: int, turns: Turns
) -> dict[str, Tensor]:
    """The same as `compute`, of one concept."""
    parts: dict[str, list[Tensor]] = {}
    for each in probes:
        for level in range(len(each.plan.times)):

            def piece(probes: ProbeSet = each, level: int = level) -> dict[str, Tensor]:
                return of_rows(base, Rows.of(probes, concept, level), rank)

            for name, tensor in turns(piece).items():
                parts.setdefault(name, []).append(tensor)
    return {name: torch.cat(tensors) for name, tensors in parts.items()}


def restricted(gradients: ConceptGradients, rank: int) -> ConceptGradients:
    """The same gradients at a lower rank: the leading directions of each.

    Raises:
        ValueError: the rank is above the one that was kept.
    """
    if not 1 <= rank <= gradients.plan.rank:
        raise ValueError(f"rank must be 1 to {gradients.plan.rank}, not {rank}")
    layers = {}
    for ref, layer in gradients.layers.items():
        left = layer.left.unflatten(0, (-1, gradients.plan.rank))[:, :rank].flatten(0, 1)
        right = layer.right.unflatten(0, (-1, gradients.plan.rank))[:, :rank].flatten(0, 1)
        lengths = (rank,) * layer.count
        layers[ref] = LayerDirections.low_rank(left.contiguous(), right.contiguous(), lengths)
    return replace(gradients, plan=replace(gradients.plan, rank=rank), layers=layers)
