"""How adapters are trained: what an operator chooses, and what differs from one to the next."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from math import inf

from loragate_server.models.base import BaseModel
from loragate_server.trials.errors import TrialError
from loragate_server.trials.nouns import Part

_RANKS = {Part.CALIBRATE: (4, 8, 16), Part.EVALUATE: (2, 4, 6, 8, 12, 16, 32)}
_RATES = {Part.CALIBRATE: (1.0,), Part.EVALUATE: (0.75, 1.0, 1.5)}
_STEPS = {Part.CALIBRATE: (0.75, 1.0, 1.25), Part.EVALUATE: (0.67, 0.92, 1.17, 1.46)}
"""Adapters that an evaluation rests on differ more than those of the calibration, as strangers'
do."""

_TINY = 50_000_000
"""Parameters below which a denoiser is a toy, which learns fast or not at all."""


@dataclass(frozen=True)
class Plan:
    """What all adapters have in common.

    Attributes:
        steps: about so many; each adapter has somewhat fewer or more.
        learning_rate: of AdamW.
        batch: pictures a step.
    """

    steps: int
    learning_rate: float
    batch: int


PLANS = {
    "sd": Plan(800, 1e-4, 2),
    "sdxl": Plan(800, 1e-4, 1),
    "sd3": Plan(800, 1e-4, 1),
    "flux": Plan(800, 1e-4, 1),
}
_TOY = Plan(240, 2e-3, 4)


@dataclass(frozen=True)
class Recipe:
    """How one adapter is trained: layers of attention of the denoiser, alpha equal to the rank."""

    rank: int
    steps: int
    learning_rate: float
    batch: int
    seed: int


def plan_for(base: BaseModel, steps: int = 0, learning_rate: float = 0.0, batch: int = 0) -> Plan:
    """The plan for a base model, with what an operator wants otherwise; 0 for the usual.

    Raises:
        TrialError: the learning rate is no number that could be one.
    """
    if not 0 <= learning_rate < inf:
        raise TrialError(f"--learning-rate {learning_rate} is none; 1e-4 is usual")
    numbers = sum(each.numel() for each in base.denoiser.parameters())
    plan = _TOY if numbers < _TINY else PLANS[base.family]
    return replace(
        plan,
        steps=steps or plan.steps,
        learning_rate=learning_rate or plan.learning_rate,
        batch=batch or plan.batch,
    )


def recipe_of(plan: Plan, part: Part, seed: int) -> Recipe:
    """The recipe of one adapter; the same whenever it is asked for."""
    rng = random.Random(f"{part.value}-{seed}")
    return Recipe(
        rank=rng.choice(_RANKS[part]),
        steps=max(1, round(plan.steps * rng.choice(_STEPS[part]))),
        learning_rate=plan.learning_rate * rng.choice(_RATES[part]),
        batch=plan.batch,
        seed=seed,
    )
