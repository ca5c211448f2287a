"""What gradients are made of, and which way: a plan is part of the name of all that follows it."""

from __future__ import annotations

from dataclasses import dataclass

from loragate_server.concepts.building.sketch import Widths
from loragate_server.concepts.probes import ProbePlan

_WIDTHS = Widths(32, 80)


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
class LeanPlan(GradientPlan):
    """A plan whose gradients are made the lean way, from sketches.

    Its name differs from that of any `GradientPlan`, and so do the names of all that is made by it:
    no cached gradient and no calibration of the one kind is taken for the other.

    Attributes:
        widths: of the sketches; part of the name as well.
    """

    widths: Widths = _WIDTHS
