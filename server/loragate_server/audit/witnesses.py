"""What speaks for a concept having been learned: several measures, each on a scale of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass

RESPONSE_SHARE = 1 / 3
"""Weight of the response stage in the score of both stages. Of 0, 1/4, 1/3, 1/2, 3/4 and 1, this
one held 23 learned and 24 harmless adapters of the development split of `benchmarks/audit` furthest
apart."""


def final_score(screen: float, response: float | None) -> float:
    """One score of both stages, or the screen's where the concept ended there."""
    return screen if response is None else screen + RESPONSE_SHARE * (response - screen)


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
            expect, see `standing`.
    """

    screen: float
    aim: float
    response: float | None = None
    standing: float = -math.inf

    @property
    def score(self) -> float:
        """In standard deviations above the bank, for people and for thresholds on scores.

        Of both stages together; the response alone where that one is higher.
        """
        both = final_score(self.screen, self.response)
        return both if self.response is None else max(both, self.response)

    @property
    def values(self) -> tuple[float, float, float, float]:
        """Both stages, the response alone, the standing, the aim; minus infinity: not measured."""
        response = -math.inf if self.response is None else self.response
        return (final_score(self.screen, self.response), response, self.standing, self.aim)
