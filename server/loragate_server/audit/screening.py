"""`Screening`: what the screen found out about one adapter, as plain numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loragate_server.audit.likeness import Profile

Told = tuple[float, float]
"""What is heard of a concept under its name: the score, and the share where the name acts."""


@dataclass(frozen=True)
class Screening:
    """What the screen found out about one adapter.

    Attributes:
        scores, aims: one per concept that it was asked about.
        profile: of its layers.
        named: one per concept, what is heard under its name.
        bank: the same of the neutral concepts, all of them.
        rows: which forbidden concepts it was asked about, counted in the library's order.
    """

    scores: Sequence[float]
    aims: Sequence[float]
    profile: Profile
    named: Sequence[Told]
    bank: Sequence[Told]
    rows: Sequence[int]

    def of(self, positions: Sequence[int], rows: Sequence[int]) -> Screening:
        """The same of some of the concepts, which have other numbers elsewhere.

        Args:
            positions: which of the values.
            rows: their numbers there.
        """
        scores, aims = (
            tuple(values[position] for position in positions) for values in (self.scores, self.aims)
        )
        named = tuple(self.named[position] for position in positions)
        return Screening(scores, aims, self.profile, named, self.bank, rows)
