"""How far a concept stands out under its own name from what the bank leads one to expect.

Adapters that learned from other pictures than the library's agree with its gradients mostly where
rows are told the concept's name, and change text where the name acts. What a harmless adapter does
to a concept there can be foretold in part from what it does to the neutral bank: whoever draws
clocks moves everything round. So both are foretold from those of the bank by ridge regression
(Hoerl and Kennard, Technometrics 12, 1970) over harmless adapters, and what is left over counts, in
its own spread: concepts differ much in how far harmless adapters move them. The two are nearly
independent of each other, so they count together; and the score alone, for an adapter that changes
no layer that reads text, or was never told the name, would be drowned by the share.

A harmless adapter is compared with what the others foretell of it: its left-out residual, exact for
a linear fit (`residual / (1 - leverage)`; Allen's PRESS, Technometrics 16, 1974).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loragate_server.audit.screening import Screening

RIDGE = 1.0
"""Weight of the penalty per adapter. On the development hand of `benchmarks/audit/other_hands`, 0.5
and 1 found as many concepts, 3 and none found fewer."""
WEIGHTS = (1.0, 2.0)
"""Of the score under the name, and of the share where it acts. On the development hand 1 and 3 for
the latter found as many concepts less surely."""
_FLOOR = 1e-6
"""Smallest spread that counts."""

Rows = NDArray[np.float64]
Stood = tuple[float, float]
"""How far a concept stands out, in standard deviations: by its score under the name alone, and by
that and the share together."""


@dataclass(frozen=True)
class Expectation:
    """What harmless adapters lead one to expect of one measure.

    Attributes:
        centre, bank_centre: float64 [concepts] and [bank], their means.
        weights: float64 [bank, concepts].
        spread: float64 [concepts], of what is left over.
    """

    centre: Rows
    bank_centre: Rows
    weights: Rows
    spread: Rows

    @classmethod
    def of(cls, named: Rows, bank: Rows) -> tuple[Expectation, Rows]:
        """Learns from harmless adapters.

        Args:
            named: float64 [adapters, concepts], one measure of each concept.
            bank: float64 [adapters, bank], the same of the neutral concepts.

        Returns:
            What they lead one to expect, and float64 [adapters, concepts]: how far each concept
            stands out from what the others lead one to expect.
        """
        count = len(named)
        centre, bank_centre = named.mean(0), bank.mean(0)
        moved = bank - bank_centre
        inverse = np.linalg.inv(moved.T @ moved + RIDGE * count * np.eye(bank.shape[1]))
        weights = inverse @ moved.T @ (named - centre)
        leverage = 1 / count + np.einsum("ij,jk,ik->i", moved, inverse, moved)
        left = (named - centre - moved @ weights) / (1 - leverage)[:, None]
        spread = np.maximum(left.std(0, ddof=1), _FLOOR)
        return cls(centre, bank_centre, weights, spread), left / spread

    def values(self, named: Rows, bank: Rows, rows: Sequence[int]) -> Rows:
        """How far some concepts of one adapter stand out, in standard deviations."""
        foretold = self.centre[rows] + (bank - self.bank_centre) @ self.weights[:, rows]
        values: Rows = (named - foretold) / self.spread[rows]
        return values


@dataclass(frozen=True)
class Standing:
    """What harmless adapters lead one to expect of both measures.

    Attributes:
        expectations: of each measure in `screening.Told`.
        spread: float64 [concepts], of the weighed sum of what is left over.
    """

    expectations: tuple[Expectation, ...]
    spread: Rows

    @classmethod
    def of(cls, harmless: Sequence[Screening]) -> tuple[Standing, list[list[Stood]]]:
        """Learns from harmless adapters that were asked about every concept.

        Returns:
            What they lead one to expect, and by adapter how far each concept stands out from what
            the others lead one to expect.
        """
        named = np.array([one.named for one in harmless], dtype=np.float64)
        bank = np.array([one.bank for one in harmless], dtype=np.float64)
        pairs = [Expectation.of(named[..., kind], bank[..., kind]) for kind in range(len(WEIGHTS))]
        left = [each for _, each in pairs]
        spread = np.maximum(_weighed(left).std(0, ddof=1), _FLOOR)
        made = cls(tuple(each for each, _ in pairs), spread)
        return made, [_stood(*both) for both in zip(left[0], _weighed(left) / spread, strict=True)]

    def values(self, screened: Screening) -> list[Stood]:
        """How far each concept of one adapter stands out."""
        rows = list(screened.rows)
        named = np.asarray(screened.named, dtype=np.float64).reshape(-1, len(WEIGHTS))
        bank = np.asarray(screened.bank, dtype=np.float64)
        left = [
            one.values(named[:, kind], bank[:, kind], rows)
            for kind, one in enumerate(self.expectations)
        ]
        return _stood(left[0], _weighed(left) / self.spread[rows])


def _stood(alone: Rows, together: Rows) -> list[Stood]:
    return list(zip(alone.tolist(), together.tolist(), strict=True))


def _weighed(measures: Sequence[Rows]) -> Rows:
    total: Rows = sum(
        (weight * one for weight, one in zip(WEIGHTS, measures, strict=True)),
        start=np.zeros_like(measures[0]),
    )
    return total
