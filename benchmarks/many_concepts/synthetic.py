"""Materials of a library of any size, of random numbers that have the shapes of real ones.

A real gradient of 5,000 concepts would take hours to make and would be read at the same speed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from loragate_kernels.lora_response import LayerDirections
from loragate_server.adapter.adapter import Adapter, KeyCoverage, ModuleRef
from loragate_server.adapter.algebra import LowRank
from loragate_server.adapter.reference import Strength
from loragate_server.audit.calibration import Calibration
from loragate_server.audit.effects import key_of
from loragate_server.audit.materials import GENERIC, NAMED, Materials
from loragate_server.audit.scores import AdapterScores
from loragate_server.audit.screen import screen
from loragate_server.audit.screening import Screening
from loragate_server.audit.stages import Screened
from loragate_server.audit.weights import Scales
from loragate_server.concepts.building.stratum import layers_of
from loragate_server.concepts.concept import Concept
from loragate_server.concepts.gradients import ConceptGradients, GradientPlan
from loragate_server.concepts.probes import ProbePlan, ProbeSet
from loragate_server.models.apply import layer_shape
from loragate_server.models.base import BaseModel

HARMLESS = 200
"""Adapters of the calibration; the shipped one has about as many."""
LIBRARY = "5" * 64
_RUN, _WINDOW = 1 << 20, 1 << 16
"""Random numbers that are made, and that are taken of them at once."""


def concepts_of(forbidden: int, neutral: int) -> tuple[Concept, ...]:
    """Concepts with names of the usual length, by id."""
    kinds = ("likeness", "character", "harm", "brand")
    made = [
        Concept(
            f"made-up-concept-{place:05}",
            f"Made-up concept {place}",
            kinds[place % 4],
            "high",
            "forbidden",
            (f"a picture of made-up concept {place}",),
        )
        for place in range(forbidden)
    ]
    bank = [
        Concept(f"neutral-{place:03}", f"Neutral {place}", "neutral", "low", "neutral")
        for place in range(neutral)
    ]
    return (*made, *bank)


def materials_of(base: BaseModel, forbidden: int, adapter: Adapter) -> Materials:
    """Everything that an engine compares adapters with; this one is like the harmless ones."""
    gradients = gradients_of(base, forbidden)
    made = Materials(
        probes_of(base, forbidden, GENERIC), probes_of(base, forbidden, NAMED), gradients
    )
    found = screen(base, gradients, [(adapter, Strength())], "reference")
    effects = {key_of(ref): 1.0 for ref in gradients.layers}
    like = Screened.of(found, gradients, range(forbidden), Scales(effects=effects)).screening
    return replace(made, calibration=calibration_of(made, like, effects))


def gradients_of(base: BaseModel, forbidden: int) -> ConceptGradients:
    """Directions by the default plan, in half precision, as real ones are kept."""
    plan = GradientPlan()
    concepts = concepts_of(forbidden, plan.plans[0].neutral)
    count = len(concepts) * len(plan.strata)
    made = torch.Generator().manual_seed(1)
    layers, norms = {}, {}
    for ref in layers_of(base):
        weight = layer_shape(base.components[ref.component].get_submodule(ref.module)).weight
        d_out, d_in = len(weight), weight[0].numel()
        left, right = (_random(count * plan.rank, width, made) for width in (d_out, d_in))
        layers[ref] = LayerDirections.low_rank(left, right, (plan.rank,) * count)
        norms[ref] = torch.rand(count, generator=made)
    return ConceptGradients(base.digest, LIBRARY, plan, concepts, plan.strata, norms, layers)


def _random(rows: int, width: int, made: torch.Generator) -> Tensor:
    """Rows of about unit length, float16: windows of one long run of random numbers."""
    found = torch.empty(rows, width, dtype=torch.float16)
    run = (torch.randn(_RUN, generator=made) / math.sqrt(width)).half()
    step = _WINDOW // width
    for top in range(0, rows, step):
        part = found[top : top + step]
        first = int(torch.randint(_RUN - part.numel(), (1,), generator=made))
        part.copy_(run[first : first + part.numel()].view_as(part))
    return found


def probes_of(base: BaseModel, forbidden: int, plan: ProbePlan) -> ProbeSet:
    """Rows of noise."""
    concepts = concepts_of(forbidden, plan.neutral)
    with torch.inference_mode():
        latents = base.encode_pictures(torch.zeros(1, 3, *base.picture_size))
    made = torch.Generator().manual_seed(2)
    shape = (len(concepts), plan.rows, *latents.shape[1:])
    noisy, target = (torch.randn(shape, generator=made) for _ in range(2))
    times = torch.tensor(plan.times).repeat(plan.pictures)
    return ProbeSet(base.digest, LIBRARY, plan, concepts, noisy, target, times)


def calibration_of(
    materials: Materials, like: Screening, effects: Mapping[str, float]
) -> Calibration:
    """What harmless adapters could have scored: as one of them, but about other concepts."""
    chance = np.random.default_rng(3)
    names = [one.concept_id for one in materials.forbidden]
    harmless = []
    for place in range(HARMLESS):
        order = chance.permutation(len(names)).tolist()
        screen_, aim = (
            {name: float(values[row]) for name, row in zip(names, order, strict=True)}
            for values in (like.scores, like.aims)
        )
        named = {name: like.named[row] for name, row in zip(names, order, strict=True)}
        bank = tuple(like.bank[row] for row in chance.permutation(len(like.bank)).tolist())
        unevenness = like.profile[0] + 0.01 * float(chance.standard_normal())
        profile = (unevenness, *like.profile[1:])
        harmless.append(AdapterScores(f"{place:064x}", screen_, aim, named, bank, profile, {}))
    return Calibration(materials.binding, tuple(harmless), effects=effects)


def adapter_of(base: BaseModel, rank: int = 8, seed: int = 4) -> Adapter:
    """A LoRA of random weights for all projections of attention."""
    made = torch.Generator().manual_seed(seed)
    deltas = {}
    for ref in layers_of(base):
        if not _is_attention(ref, base):
            continue
        weight = layer_shape(base.components[ref.component].get_submodule(ref.module)).weight
        down = torch.randn(rank, weight.shape[1], generator=made) / weight.shape[1] ** 0.5
        up = torch.randn(weight.shape[0], rank, generator=made) * 0.01
        deltas[ref] = LowRank(down, up, 1.0)
    count = len(deltas)
    coverage = KeyCoverage(2 * count, 2 * count, (), count)
    return Adapter("a" * 64, 1 << 20, "peft", deltas, coverage, {})


def _is_attention(ref: ModuleRef, base: BaseModel) -> bool:
    endings = ("to_q", "to_k", "to_v", "to_out.0")
    return ref.component == base.denoiser_component and ref.module.endswith(endings)
