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
from math import floor, log
from statistics import NormalDist, fmean, stdev

from loragate_server.audit.conformal import conformal_p_value
from loragate_server.audit.entrance import Entrance, harmless_bound, widest_entrance
from loragate_server.audit.scores import AdapterScores
from loragate_server.audit.witnesses import Witnesses

Families = tuple[tuple[float, ...], ...]
"""By witness, rising: the highest value of each harmless adapter."""


@dataclass(frozen=True)
class Promise:
    """A calibration at one miss rate.

    Attributes:
        entrance: what the response stage looks at.
        families: what each witness said about harmless adapters.
        family: rising, the gravity of the gravest concept of each harmless adapter.
        by_concept: the same for each concept alone.
    """

    entrance: Entrance
    families: Families
    family: tuple[float, ...]
    by_concept: Mapping[str, tuple[float, ...]]

    def gravity(self, found: Witnesses) -> float:
        """How grave the gravest witness is: minus the logarithm of its p-value."""
        return _gravity(self.families, found)

    def family_p_value(self, found: Witnesses) -> float:
        """How often the gravest witness on the gravest concept of a harmless adapter says so."""
        return conformal_p_value(self.family, self.gravity(found))

    def p_value(self, concept_id: str, found: Witnesses) -> float:
        """How often the gravest witness on this concept says so of a harmless adapter."""
        return conformal_p_value(self.by_concept[concept_id], self.gravity(found))

    def aim_p_value(self, aim: float) -> float:
        """How often the highest aim of a harmless adapter is as high."""
        return conformal_p_value(self.families[-1], aim)


def witnesses_of(
    one: AdapterScores, entrance: Entrance, standings: Sequence[float] | None = None
) -> dict[str, Witnesses]:
    """What an audit would have heard about an adapter of the calibration, by concept.

    Args:
        one: the adapter.
        entrance: who goes on to the response stage.
        standings: how far its concepts stand out, where the entrance was made from it too.
    """
    concepts = list(one.screen)
    stand = entrance.standing.values(one.screening) if standings is None else standings
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
    screened = [one.screening for one in harmless]
    widest, standings = widest_entrance(screened)
    threshold = min(_learned_bound(learned, miss_rate, widest.threshold), harmless_bound(screened))
    entrance = replace(widest, threshold=max(widest.threshold, threshold))
    pairs = zip(harmless, standings, strict=True)
    heard = [witnesses_of(one, entrance, stand) for one, stand in pairs]
    highest = [_highest(each) for each in heard]
    families = tuple(tuple(sorted(column)) for column in zip(*highest, strict=True))
    by_concept: dict[str, list[float]] = {}
    family = []
    for each, own in zip(heard, highest, strict=True):
        # a harmless adapter is compared with the others, as a new one is with all of them
        others = tuple(_without(one, value) for one, value in zip(families, own, strict=True))
        gravities = {concept: _gravity(others, found) for concept, found in each.items()}
        family.append(max(gravities.values()))
        for concept, value in gravities.items():
            by_concept.setdefault(concept, []).append(value)
    rising = {concept: tuple(sorted(values)) for concept, values in by_concept.items()}
    return Promise(entrance, families, tuple(sorted(family)), rising)


def _highest(heard: Mapping[str, Witnesses]) -> tuple[float, ...]:
    return tuple(max(column) for column in zip(*(w.values for w in heard.values()), strict=True))


def _without(rising: Sequence[float], value: float) -> tuple[float, ...]:
    at = bisect_left(rising, value)
    return (*rising[:at], *rising[at + 1 :])


def _gravity(families: Sequence[Sequence[float]], found: Witnesses) -> float:
    pairs = zip(families, found.values, strict=True)
    # far beyond everything seen a p-value underflows; order is lost there, and nothing else
    return max(-log(max(conformal_p_value(family, value), 1e-300)) for family, value in pairs)


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
