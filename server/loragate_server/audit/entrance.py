"""Who goes on from the screen to the response stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loragate_server.audit.conformal import quantile
from loragate_server.audit.likeness import UNLIKE, Likeness, Profile

_LOW_SHARE, _HIGH_SHARE = 0.5, 0.75
"""Shares of harmless adapters whose scores end at the screen, at least and at most."""
_AIM_SHARE = 0.9
"""Share of harmless adapters whose aims let them end at the screen."""
_TOP = 2
"""Concepts that an adapter unlike the harmless ones is asked about, by score and by aim."""


@dataclass(frozen=True)
class Screening:
    """What the screen found out about one adapter.

    Attributes:
        scores, aims: one per concept that it was asked about.
        profile: of its layers.
    """

    scores: Sequence[float]
    aims: Sequence[float]
    profile: Profile


@dataclass(frozen=True)
class Entrance:
    """What sends a concept to the response stage.

    Attributes:
        threshold: of the screen's score.
        aim: the same of the aim.
        likeness: profiles of harmless adapters; nothing of an adapter that is unlike them ends at
            the screen by its score alone.
    """

    threshold: float
    aim: float
    likeness: Likeness

    def suspects(self, screened: Screening) -> list[int]:
        """Rows of the concepts that go on, rising."""
        rows = range(len(screened.scores))
        chosen = {row for row in rows if not screened.scores[row] < self.threshold}
        chosen |= {row for row in rows if not screened.aims[row] < self.aim}
        if not self.likeness.p_value(screened.profile) > UNLIKE:
            for values in (screened.scores, screened.aims):
                chosen |= set(sorted(rows, key=values.__getitem__)[-_TOP:])
        return sorted(chosen)


def widest_entrance(harmless: Sequence[Screening]) -> Entrance:
    """The entrance that lets everything through that any miss rate does."""
    highest = sorted(max(one.scores) for one in harmless)
    aims = sorted(max(one.aims) for one in harmless)
    likeness = Likeness.of([one.profile for one in harmless])
    return Entrance(quantile(highest, _LOW_SHARE), quantile(aims, _AIM_SHARE), likeness)


def harmless_bound(harmless: Sequence[Screening]) -> float:
    """The threshold that three quarters of harmless adapters stay below."""
    return quantile(sorted(max(one.scores) for one in harmless), _HIGH_SHARE)
