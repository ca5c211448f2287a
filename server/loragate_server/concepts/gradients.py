"""Concept gradients: how each layer's weights would have to move for a concept to be learned.

To first order an adapter changes the denoising loss L_c of a concept by <dL_c/dW, dW>, summed over
layers: no forward pass per adapter. After one epoch of plain gradient descent a task vector equals
the negative gradient up to its length (arXiv 2508.16082), so what has learned the concept points
against it. The loss is taken as the mean logarithm over rows, so that easy and hard pictures
weigh alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from loragate_kernels.lora_response import LayerDirections
from loragate_server.adapter.adapter import ModuleRef
from loragate_server.concepts.cache import TensorCache
from loragate_server.concepts.concept import Concept
from loragate_server.concepts.library import ConceptLibrary
from loragate_server.concepts.probes import (
    ProbePlan,
    ProbeSet,
    build_probes,
)
from loragate_server.models.base import BaseModel, per_row_loss
from loragate_server.progress import Report, Turns, at_once, silent

_METHOD = "2"
"""Raised when the same plan gives other gradients, so that cached ones are not used any more."""
_OVERSAMPLING = 4
_ROUNDING = 1e-4
"""Root of the smallest singular value of a unit-norm gradient that float32 can tell from none."""
_LOSS_SCALE = 1024.0
"""Gradients in half precision would vanish without it; lengths are not kept, so it cancels."""


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
    weights = _weights(base)
    layers = {
        ref: LayerDirections.low_rank(
            stored[_key("left", ref)].to(base.device),
            stored[_key("right", ref)].to(base.device),
            lengths,
        )
        for ref in weights
    }
    return ConceptGradients(
        base.digest,
        probes[0].library_digest,
        plan,
        probes[0].concepts,
        plan.strata,
        {ref: stored[_key("norm", ref)].to(base.device) for ref in weights},
        layers,
    )


def _key(side: str, ref: ModuleRef) -> str:
    return f"{side}.{ref.component}.{ref.module}"


def _weights(base: BaseModel) -> dict[ModuleRef, nn.Parameter]:
    """The weights that an adapter may change, of the denoiser and of the text encoders."""
    found: dict[ModuleRef, nn.Parameter] = {}
    for (component, name), module in base.adaptable_modules().items():
        assert isinstance(module.weight, nn.Parameter)  # noqa: S101 - linear or convolution
        found[ModuleRef(component, name)] = module.weight
    return found


@contextmanager
def _differentiable(weights: Mapping[ModuleRef, nn.Parameter]) -> Iterator[None]:
    try:
        for weight in weights.values():
            weight.requires_grad_(True)
        yield
    finally:
        for weight in weights.values():
            weight.requires_grad_(False)


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
                return _of_stratum(base, probes, concept, level, rank)

            for name, tensor in turns(piece).items():
                parts.setdefault(name, []).append(tensor)
    return {name: torch.cat(tensors) for name, tensors in parts.items()}


def _of_stratum(
    base: BaseModel, probes: ProbeSet, concept: int, level: int, rank: int
) -> dict[str, Tensor]:
    """The same of one concept at one time; the model is as before when this returns or raises."""
    weights = _weights(base)
    made = {}
    with _differentiable(weights):
        gradients = _gradients(base, probes, concept, level, weights)
    for ref, gradient in zip(weights, gradients, strict=True):
        norm = gradient.float().norm()
        left, right = compress(gradient.flatten(1).float(), rank)
        made[_key("norm", ref)] = (norm / _LOSS_SCALE).reshape(1).cpu()
        made[_key("left", ref)] = left.half().cpu()
        made[_key("right", ref)] = right.half().cpu()
    return made


def _gradients(
    base: BaseModel,
    probes: ProbeSet,
    concept: int,
    level: int,
    weights: Mapping[ModuleRef, nn.Parameter],
) -> tuple[Tensor, ...]:
    """d(mean log loss)/dW of one concept at one time, dense, by layer; zeros where it has none."""
    rows = slice(level, None, len(probes.plan.times))
    # made in inference mode, which autograd refuses; a copy is an ordinary tensor
    noisy = probes.noisy[concept, rows].clone()
    target = probes.target[concept, rows].clone()
    same = torch.zeros(len(noisy), dtype=torch.long, device=noisy.device)
    with torch.enable_grad():
        told = base.encode_prompts([probes.prompt_of(concept)]).rows(same)
        prediction = base.denoise(noisy, probes.times[rows].clone(), told)
        loss = per_row_loss(prediction, target).log().mean() * _LOSS_SCALE
        return torch.autograd.grad(
            loss, list(weights.values()), allow_unused=True, materialize_grads=True
        )


def compress(gradient: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """A unit-norm gradient [out, in] as left [rank, out] and right [rank, in]: left' right.

    The best approximation of its rank up to the error of randomised subspace iteration (arXiv
    0909.4061, algorithm 4.4). A gradient of zero, and ranks that the matrix does not have, give
    rows of zeros.
    """
    left = gradient.new_zeros(rank, len(gradient))
    right = gradient.new_zeros(rank, gradient.shape[1])
    norm = gradient.norm()
    if not norm > 0:
        return left, right
    unit = gradient / norm
    width = min(rank + _OVERSAMPLING, *gradient.shape)
    generator = torch.Generator().manual_seed(0)  # the same gradient gives the same directions
    start = torch.randn(gradient.shape[1], width, generator=generator).to(unit)
    basis = torch.linalg.qr(unit @ start).Q
    basis = torch.linalg.qr(unit @ (unit.t() @ basis)).Q
    small = basis.t() @ unit
    # squared singular values of the small matrix; ascending, so the leading ones come last
    squares, vectors = torch.linalg.eigh(small @ small.t())
    kept = min(rank, width)
    squares, vectors = squares.flip(0)[:kept].clamp_min(0), vectors.flip(1)[:, :kept]
    # the root of the singular value on both sides keeps both well inside float16
    root = squares.pow(0.25)
    left[:kept] = ((basis @ vectors) * root).t()
    # directions that are rounding alone are left out; dividing by their root would blow them up
    real = root > _ROUNDING
    right[:kept] = torch.where(real, vectors / root.clamp_min(_ROUNDING), 0.0).t() @ small
    return left, right


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
