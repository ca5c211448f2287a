"""`Screening`: what the screen found out about one adapter, as plain numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loragate_server.audit.likeness import Profile


@dataclass(frozen=True)
class Screening:
    """What the screen found out about one adapter.

    Attributes:
        scores, aims: one per concept that it was asked about.
        profile: of its layers.
        named: one per concept: its score where rows were told its name.
        bank: the same of the neutral concepts, all of them.
        rows: which forbidden concepts it was asked about, counted in the library's order.
    """

    scores: Sequence[float]
    aims: Sequence[float]
    profile: Profile
    named: Sequence[float]
    bank: Sequence[float]
    rows: Sequence[int]

    def of(self, positions: Sequence[int], rows: Sequence[int]) -> Screening:
        """The same of some of the concepts, which have other numbers elsewhere.

        Args:
            positions: which of the values.
            rows: their numbers there.
        """
        scores, aims, named = (
            tuple(values[position] for position in positions)
            for values in (self.scores, self.aims, self.named)
        )
        return Screening(scores, aims, self.profile, named, self.bank, rows)
