"""How far a concept stands out under its own name from what the bank leads one to expect.

Adapters that learned from other pictures than the library's agree with its gradients mostly where
rows are told the concept's name. What a harmless adapter does to a concept there can be foretold in
part from what it does to the neutral bank: whoever draws clocks moves everything round. So each
concept's score is foretold from those of the bank by ridge regression (Hoerl and Kennard,
Technometrics 12, 1970) over harmless adapters, and what is left over counts, in its own spread:
concepts differ much in how far harmless adapters move them.

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
_FLOOR = 1e-6
"""Smallest spread that counts."""

Rows = NDArray[np.float64]


@dataclass(frozen=True)
class Standing:
    """What harmless adapters lead one to expect.

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
    def of(cls, harmless: Sequence[Screening]) -> tuple[Standing, list[list[float]]]:
        """Learns from harmless adapters that were asked about every concept.

        Returns:
            What they lead one to expect, and by adapter how far each concept stands out from what
            the others lead one to expect.
        """
        named = np.array([one.named for one in harmless], dtype=np.float64)
        bank = np.array([one.bank for one in harmless], dtype=np.float64)
        count = len(harmless)
        centre, bank_centre = named.mean(0), bank.mean(0)
        moved = bank - bank_centre
        inverse = np.linalg.inv(moved.T @ moved + RIDGE * count * np.eye(bank.shape[1]))
        weights = inverse @ moved.T @ (named - centre)
        leverage = 1 / count + np.einsum("ij,jk,ik->i", moved, inverse, moved)
        left = (named - centre - moved @ weights) / (1 - leverage)[:, None]
        spread = np.maximum(left.std(0, ddof=1), _FLOOR)
        values: list[list[float]] = (left / spread).tolist()
        return cls(centre, bank_centre, weights, spread), values

    def values(self, screened: Screening) -> list[float]:
        """How far each concept of one adapter stands out, in standard deviations."""
        rows = list(screened.rows)
        bank = np.asarray(screened.bank, dtype=np.float64) - self.bank_centre
        foretold = self.centre[rows] + bank @ self.weights[:, rows]
        left = np.asarray(screened.named, dtype=np.float64) - foretold
        values: list[float] = (left / self.spread[rows]).tolist()
        return values
