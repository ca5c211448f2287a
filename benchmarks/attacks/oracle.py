"""What an attacker who has the whole server at home can ask of an adapter whose layers are scaled.

The screen's gains are linear in the weights, so layers are scaled, flipped and shrunk without
reading a file again: thousands of questions a second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from benchmarks.attacks.bench import Bench
from loragate_server.adapter.adapter import Adapter
from loragate_server.adapter.reference import Strength
from loragate_server.audit.score import against_bank
from loragate_server.audit.screen import Screen, screen, standardised
from loragate_server.audit.stages import Screened
from loragate_server.audit.weights import weights_of
from loragate_server.audit.witnesses import Witnesses


def landed_scores(found: Screen, bench: Bench) -> Tensor:
    """The screen's scores when every layer voted with the same loudness, whatever it did."""
    gradients = bench.gradients
    assert bench.engine.materials.calibration is not None
    roles = weights_of(
        found.layers, len(gradients.strata), bench.engine.materials.calibration.weights
    )
    votes = standardised(found.gain, slice(gradients.forbidden_count, None))
    total = (votes * roles.unsqueeze(1)).sum((0, 2))
    return against_bank(total.unsqueeze(1), gradients.forbidden_count).score


@dataclass(frozen=True)
class Oracle:
    """One adapter and the concept that it has learned.

    Attributes:
        found: its gains as it is.
        concept: index of the concept.
    """

    bench: Bench
    found: Screen
    concept: int

    @classmethod
    def of(cls, bench: Bench, adapter: Adapter, concept_id: str) -> Oracle:
        """Screens the adapter once."""
        found = screen(bench.base, bench.gradients, [(adapter, Strength())], "reference")
        return cls(bench, found, bench.concept_ids.index(concept_id))

    def scaled(self, factors: Sequence[float]) -> Screen:
        """The gains with every layer multiplied by its factor."""
        by_layer = torch.tensor(factors, dtype=torch.float64)[:, None, None]
        return replace(self.found, gain=self.found.gain * by_layer)

    def landed(self, factors: Sequence[float]) -> float:
        """The score that every answer used to show."""
        return float(landed_scores(self.scaled(factors), self.bench)[self.concept])

    def gravity(self, factors: Sequence[float]) -> float:
        """How grave the screen's witnesses are now: what has to be small to be let through."""
        made = self.bench.engine.materials.calibration
        assert made is not None
        wanted = [self.concept]
        seen = Screened.of(self.scaled(factors), self.bench.gradients, wanted, made.scales)
        promise = made.at(self.bench.policy.screen_miss_rate)
        [standing] = promise.entrance.standing.values(seen.screening)
        return promise.gravity(
            Witnesses(seen.screening.scores[0], seen.screening.aims[0], standing=standing)
        )

    @property
    def use(self) -> list[float]:
        """What each layer does for the concept, to first order in nats."""
        gradients = self.bench.gradients
        shape = (len(gradients.concepts), len(gradients.strata))
        steep = torch.stack(
            [
                gradients.norms[ref].double().reshape(shape)[self.concept]
                for ref in self.found.layers
            ]
        )
        found: list[float] = (self.found.gain[:, self.concept] * steep).sum(1).tolist()
        return found

    def greedy(
        self,
        ask: Callable[[Sequence[float]], float],
        choices: Sequence[float],
        most: int,
        among: Sequence[int] = (),
    ) -> list[float]:
        """Changes one layer after the other to whichever choice lowers the answer most.

        Args:
            ask: what is to be lowered.
            choices: factors that a layer may get.
            most: layers that may be changed.
            among: layers to choose from; all when empty.
        """
        factors = [1.0] * len(self.found.layers)
        for _ in range(most):
            tried = [
                (ask([*factors[:at], choice, *factors[at + 1 :]]), at, choice)
                for at, factor in enumerate(factors)
                if factor == 1.0 and at in (among or range(len(factors)))
                for choice in choices
            ]
            _, at, choice = min(tried)
            factors[at] = choice
        return factors
