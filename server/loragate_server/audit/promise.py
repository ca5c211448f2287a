"""`Promise`: a calibration at one miss rate, which turns what was measured into p-values.

Several witnesses speak for a concept, and the gravest counts. Each is compared with the highest
value of each harmless adapter over all concepts (Westfall and Young's maxT), and the smallest of
these p-values with the smallest that each harmless adapter has among the others (their minP). So
the rate holds per adapter: neither the number of concepts nor that of witnesses has to be
corrected for.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import exp, floor, log
from statistics import NormalDist, fmean, stdev

import numpy as np

from loragate_server.audit.conformal import (
    Floats,
    Rising,
    conformal_p_value,
    gravity_of,
    without_ties,
)
from loragate_server.audit.entrance import Entrance, harmless_bound, widest_entrance
from loragate_server.audit.scores import AdapterScores
from loragate_server.audit.standing import Stood
from loragate_server.audit.witnesses import Witnesses, values_of

STANDS_OUT = 1e-5
"""p-value among the others from which a harmless adapter is told of. It is extrapolated: of 100
harmless ones drawn from those of the embedded model one stood out in 1 of 25 draws, of 140 in
none, and 11 of 17 adapters that had learned a concept did."""
ENOUGH = 100
"""Below so many harmless adapters the extrapolation tells nothing."""
STRICTEST = 0.01
"""Miss rate of the screen at which they are looked at."""

Families = tuple[tuple[float, ...], ...]
"""By witness, rising: the highest value of each harmless adapter."""


@dataclass(frozen=True)
class Weighed:
    """What harmless adapters say of some concepts of one adapter, float64 [concepts] each.

    Attributes:
        p_value: as `Promise.p_value` has it.
        family_p_value: the same, as `Promise.family_p_value`.
        aim_p_value: the same, as `Promise.aim_p_value`.
    """

    p_value: Floats
    family_p_value: Floats
    aim_p_value: Floats


@dataclass(frozen=True, eq=False)
class Promise:
    """A calibration at one miss rate.

    Attributes:
        entrance: what the response stage looks at.
        families: what each witness said about harmless adapters.
        family: rising, the gravity of the gravest concept of each harmless adapter.
        by_concept: the same for each concept alone, in the calibration's order.
    """

    entrance: Entrance
    families: Families
    family: tuple[float, ...]
    by_concept: Mapping[str, Floats]

    def weigh(self, rows: Sequence[int], values: Floats) -> Weighed:
        """Asks about many concepts at once; each gets the same, to the last bit, as alone.

        Args:
            rows: which concepts of the calibration they are, counted in its order.
            values: float64 [witnesses, concepts], see `witnesses.values_of`.
        """
        gravity = _gravities(self._rising, values)
        own = self._rows[list(rows)]
        # as `conformal_p_value` of every row
        higher = (own >= without_ties(gravity)[:, None]).sum(1)
        p_value = (1 + higher) / (own.shape[1] + 1)
        for place in np.flatnonzero(higher == 0):
            p_value[place] = conformal_p_value(own[place].tolist(), float(gravity[place]))
        return Weighed(
            p_value, self._family.p_values(gravity), self._rising[-1].p_values(values[-1])
        )

    def gravity(self, found: Witnesses) -> float:
        """How grave the gravest witness is: minus the logarithm of its p-value."""
        return _gravity(self.families, found)

    def family_p_value(self, found: Witnesses) -> float:
        """How often the gravest witness on the gravest concept of a harmless adapter says so."""
        return conformal_p_value(self.family, self.gravity(found))

    def p_value(self, concept_id: str, found: Witnesses) -> float:
        """How often the gravest witness on this concept says so of a harmless adapter."""
        return conformal_p_value(self.by_concept[concept_id].tolist(), self.gravity(found))

    def aim_p_value(self, aim: float) -> float:
        """How often the highest aim of a harmless adapter is as high."""
        return conformal_p_value(self.families[-1], aim)

    @cached_property
    def _rising(self) -> tuple[Rising, ...]:
        return tuple(Rising(family) for family in self.families)

    @cached_property
    def _family(self) -> Rising:
        return Rising(self.family)

    @cached_property
    def _rows(self) -> Floats:
        """float64 [concepts, harmless adapters]."""
        return np.stack(list(self.by_concept.values()))


def witnesses_of(one: AdapterScores, entrance: Entrance) -> dict[str, Witnesses]:
    """What an audit would have heard about an adapter of the calibration, by concept.

    Args:
        one: the adapter.
        entrance: who goes on to the response stage.
    """
    concepts = list(one.screen)
    stand = entrance.standing.values(one.screening)
    looked = set(entrance.suspects(one.screening, stand))
    return {
        concept: Witnesses(
            one.screen[concept],
            one.aim[concept],
            one.response.get(concept) if row in looked else None,
            stand[row],
        )
        for row, concept in enumerate(concepts)
    }


def promise_of(
    harmless: Sequence[AdapterScores], learned: Sequence[AdapterScores], miss_rate: float
) -> Promise:
    """The promise that a calibration makes; its threshold is never below the widest entrance's."""
    entrance, families, every = _among_the_others(harmless, learned, miss_rate)
    family = tuple(sorted(every.max(1).tolist()))
    rows = np.ascontiguousarray(np.sort(every, axis=0).T)
    return Promise(entrance, families, family, dict(zip(harmless[0].screen, rows, strict=True)))


@dataclass(frozen=True)
class StandsOut:
    """A harmless adapter that is far graver for a concept than the others.

    Attributes:
        sha256: of the adapter.
        p_value: of the gravest witness among the others, as it is extrapolated.
    """

    sha256: str
    concept_id: str
    p_value: float


def standing_out(
    harmless: Sequence[AdapterScores], learned: Sequence[AdapterScores]
) -> list[StandsOut]:
    """Adapters among the harmless that may well have learned a concept.

    With one that shows a concept, no adapter as grave is blocked, for whatever concept.

    Returns:
        What is far beyond all others (`STANDS_OUT`); nothing where there are too few to tell.
    """
    if len(harmless) < ENOUGH:
        return []
    _, _, every = _among_the_others(harmless, learned, STRICTEST)
    concepts = list(harmless[0].screen)
    return [
        StandsOut(one.sha256, concepts[row], exp(-float(gravities[row])))
        for one, gravities in zip(harmless, every, strict=True)
        for row in np.flatnonzero(gravities >= -log(STANDS_OUT))
    ]


def _among_the_others(
    harmless: Sequence[AdapterScores], learned: Sequence[AdapterScores], miss_rate: float
) -> tuple[Entrance, Families, Floats]:
    """Entrance, families, and the gravity of every concept, float64 [adapters, concepts]."""
    screened = [one.screening for one in harmless]
    widest, standings = widest_entrance(screened)
    threshold = min(_learned_bound(learned, miss_rate, widest.threshold), harmless_bound(screened))
    entrance = replace(widest, threshold=max(widest.threshold, threshold))
    pairs = zip(harmless, standings, strict=True)
    heard = [_heard(one, entrance, stand) for one, stand in pairs]
    highest = [tuple(values.max(1).tolist()) for values in heard]
    families = tuple(tuple(sorted(column)) for column in zip(*highest, strict=True))
    gravities = []
    for values, own in zip(heard, highest, strict=True):
        # a harmless adapter is compared with the others, as a new one is with all of them
        others = [Rising(_without(one, value)) for one, value in zip(families, own, strict=True)]
        gravities.append(_gravities(others, values))
    return entrance, families, np.stack(gravities)


def _heard(one: AdapterScores, entrance: Entrance, stand: Sequence[Stood]) -> Floats:
    """As `witnesses_of`, float64 [witnesses, concepts]."""
    concepts, screening = list(one.screen), one.screening
    looked = {
        row: value
        for row in entrance.suspects(screening, stand)
        if (value := one.response.get(concepts[row])) is not None
    }
    return values_of(screening.scores, screening.aims, stand, looked)


def _gravities(families: Sequence[Rising], values: Floats) -> Floats:
    """As `_gravity` of every concept, float64 [concepts]."""
    pairs = zip(families, values, strict=True)
    found: Floats = np.stack([family.gravities(row) for family, row in pairs]).max(0)
    return found


def _without(rising: Sequence[float], value: float) -> tuple[float, ...]:
    at = bisect_left(rising, value)
    return (*rising[:at], *rising[at + 1 :])


def _gravity(families: Sequence[Sequence[float]], found: Witnesses) -> float:
    pairs = zip(families, found.values, strict=True)
    return max(gravity_of(conformal_p_value(family, value)) for family, value in pairs)


def _learned_bound(learned: Sequence[AdapterScores], miss_rate: float, low: float) -> float:
    """The screen score that at most `miss_rate` of learned concepts fall below.

    From the scores themselves where there are enough, else from a normal fit to them.
    """
    scores = sorted(one.screen[c] for one in learned for c in one.learned)
    if len(scores) < 2:
        return low
    fitted = NormalDist(fmean(scores), max(stdev(scores), 1e-6)).inv_cdf(miss_rate)
    rank = floor(miss_rate * (len(scores) + 1))
    return min(fitted, scores[rank - 1]) if rank else fitted


def learned_p_values(promise: Promise, learned: Sequence[AdapterScores]) -> dict[str, list[float]]:
    """By concept, the family p-values of the adapters that are known to have learned it."""
    found: dict[str, list[float]] = {}
    for one in learned:
        heard = witnesses_of(one, promise.entrance)
        for concept in one.learned:
            found.setdefault(concept, []).append(promise.family_p_value(heard[concept]))
    return found
