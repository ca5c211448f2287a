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
from loragate_server.concepts.building.builder import Builder
from loragate_server.concepts.building.faults import memory_named
from loragate_server.concepts.building.stratum import key, layers_of
from loragate_server.concepts.cache import TensorCache
from loragate_server.concepts.concept import Concept
from loragate_server.concepts.joined import JoinedFiles
from loragate_server.concepts.library import ConceptLibrary
from loragate_server.concepts.naming import NameSpan, name_spans
from loragate_server.concepts.plan import GradientPlan as GradientPlan
from loragate_server.concepts.plan import LeanPlan as LeanPlan
from loragate_server.concepts.plan import Stratum as Stratum
from loragate_server.concepts.probes import ProbeSet, build_probes
from loragate_server.config.gradients import GradientsSection
from loragate_server.models.base import BaseModel
from loragate_server.progress import Report, Turns, at_once, silent

_METHOD = "2"
"""Raised when the same plan gives other gradients, so that cached ones are not used any more."""


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

    @cached_property
    def forbidden_count(self) -> int:
        """How many of the leading concepts are forbidden."""
        return sum(concept.role == "forbidden" for concept in self.concepts)

    @cached_property
    def steepness(self) -> float:
        """Average norm of the neutral gradients: nats per unit of weight, layers alike."""
        first = self.forbidden_count * len(self.strata)
        every = torch.cat([norm[first:].double() for norm in self.norms.values()])
        return float(every.mean())

    @cached_property
    def spans(self) -> Mapping[ModuleRef, NameSpan]:
        """Where the concepts' names act, by layer that reads text; made once."""
        return name_spans(self.layers, self.strata, self.forbidden_count)

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
    settings: GradientsSection | None = None,
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
        plan: the default plan when None, of the kind that the settings choose.
        turns: when the base model is free; a gradient of one concept at one time is made in one.
        settings: which way, and how much memory; the defaults when None.

    Raises:
        NoDecisionError: CONCEPT_PICTURES_INVALID; DISK_FULL when the cache cannot be written;
            OUT_OF_MEMORY before anything is made where the predicted peak does not fit, or when it
            was wrong; AUDIT_FAILED for a gradient that is not finite.
    """
    plans = (plan or GradientPlan()).plans  # those of every kind, unless one is given
    probes = [build_probes(library, base, cache_dir, report, each, turns) for each in plans]
    builder = Builder(base, probes, settings or GradientsSection(), turns, plan, cache_dir)
    plan = builder.plan
    cache = TensorCache(cache_dir, "gradients", base, repr(plan), _METHOD)
    pictures = max(each.pictures for each in plan.plans)
    shown = [concept.shown(pictures) for concept in probes[0].concepts]
    joined = JoinedFiles(cache_dir, cache.stem).tensors(
        [path.name for path in cache.paths(shown)],
        lambda: _joined(cache.each(shown, builder.make, report)),
    )
    made = assemble(base, probes, plan, joined)
    with memory_named(base, "where names act", "Serve fewer concepts, or use another device."):
        _ = made.spans  # here, and not within the first audit
    return made


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
    base: BaseModel,
    probes: Sequence[ProbeSet],
    plan: GradientPlan,
    report: Report = silent,
) -> dict[str, Tensor]:
    """The gradients by layer, on the CPU.

    Returns:
        left.LAYER float16 [concepts * strata * rank, out], right.LAYER float16 [..., in], and
        norm.LAYER float32 [concepts * strata].
    """
    builder = Builder(base, probes, GradientsSection(), at_once, plan)
    count, parts = len(probes[0].concepts), []
    for concept in range(count):
        report("gradients", concept / count)
        parts.append(builder.make(concept))
    report("gradients", 1.0)
    return _joined(parts)


def _joined(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The gradients of several concepts as one; empties `parts`, which would be there twice."""
    names = list(parts[0])
    return {name: torch.cat([part.pop(name) for part in parts]) for name in names}


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
