"""Gradients of tiny models in whole, and adapters that are a step along them."""

from __future__ import annotations

from loragate_server.adapter.adapter import Adapter, KeyCoverage
from loragate_server.adapter.algebra import LowRank
from loragate_server.concepts.gradients import ConceptGradients, GradientPlan
from loragate_server.concepts.probes import ProbePlan
from loragate_server.models import BaseModel

PLAN = GradientPlan(
    plans=(
        ProbePlan(pictures=1, times=(0.2, 0.6), neutral=8),
        ProbePlan(pictures=1, times=(0.4,), neutral=8, named=True),
    ),
    rank=64,
)
"""At this rank nothing of a tiny layer is cut away."""


def step_towards(base: BaseModel, gradients: ConceptGradients, target: int, size: float) -> Adapter:
    """One step of gradient descent on one concept, all strata, as an adapter would store it."""
    rows = slice(target * len(gradients.strata), (target + 1) * len(gradients.strata))
    deltas = {}
    for ref, layer in gradients.layers.items():
        if ref.component != base.denoiser_component or not ref.module.endswith(("to_q", "to_v")):
            continue
        lines = slice(rows.start * gradients.plan.rank, rows.stop * gradients.plan.rank)
        deltas[ref] = LowRank(layer.right[lines].float(), -layer.left[lines].t().float(), size)

    coverage = KeyCoverage(2 * len(deltas), 2 * len(deltas), (), len(deltas))
    return Adapter("f" * 64, 1, "test", deltas, coverage, {})
