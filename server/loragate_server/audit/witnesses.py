"""What speaks for a concept having been learned: several measures, each on a scale of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from loragate_server.audit.conformal import Floats
from loragate_server.audit.standing import Stood

NOT_STOOD: Stood = (-math.inf, -math.inf)
"""Where nothing says what to expect."""

RESPONSE_SHARE = 1 / 3
"""Weight of what the response stage adds to the screen's score. Of 0, 1/4, 1/3, 1/2, 3/4 and 1 it
held 23 learned and 24 harmless adapters of the development split of `benchmarks/audit` furthest
apart, when a response below the screen's score still took from it."""


def final_score(screen: float, response: float | None) -> float:
    """One score of both stages, or the screen's where the concept ended there.

    The response only adds: whoever makes the model worse at the probes, which costs an attacker
    little, would else take away what the weights say.
    """
    if response is None or response < screen:
        return screen
    return screen + RESPONSE_SHARE * (response - screen)


@dataclass(frozen=True)
class Witnesses:
    """The measures of one concept.

    They fail in different ways: who lowers the one cannot count on having lowered the others.

    Attributes:
        screen: the screen's score: layers vote.
        aim: share of what the weights do that goes towards the concept: no votes, see
            `screen.aims`.
        response: the response stage's score: what the adapter does to pictures of the concept.
            None where it ended at the screen.
        standing: how far the concept stands out under its name from what the bank leads one to
            expect, by its score alone and together with the share where the name acts; see
            `standing`.
    """

    screen: float
    aim: float
    response: float | None = None
    standing: Stood = NOT_STOOD

    @property
    def score(self) -> float:
        """In standard deviations above the bank, for people and for thresholds on scores.

        That of the stage in which the concept stands out more.
        """
        if self.response is None or self.response <= self.screen:
            return self.screen
        return self.response if self.screen < self.response else math.nan

    @property
    def values(self) -> tuple[float, float, float, float, float]:
        """Both stages, the response alone, both standings, the aim; -infinity: not measured."""
        response = -math.inf if self.response is None else self.response
        return (final_score(self.screen, self.response), response, *self.standing, self.aim)


def values_of(
    screen: Sequence[float],
    aim: Sequence[float],
    standing: Sequence[Stood | None],
    response: Mapping[int, float],
) -> Floats:
    """`Witnesses.values` of many concepts at once, float64 [witnesses, concepts].

    Args:
        screen: by concept, the screen's score.
        aim: by concept, the aim.
        standing: by concept how far it stands out; None where nothing says what to expect.
        response: the response stage's score of those concepts, by place, that came so far.
    """
    both = np.array(screen, dtype=np.float64)
    alone = np.full(len(both), -np.inf)
    for place, value in response.items():
        both[place] = final_score(float(both[place]), value)
        alone[place] = value
    stood = np.array([NOT_STOOD if value is None else value for value in standing], np.float64)
    return np.stack([both, alone, *stood.reshape(-1, 2).T, np.array(aim, dtype=np.float64)])
