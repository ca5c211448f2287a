"""Who goes on from the screen to the response stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from loragate_server.audit.conformal import quantile
from loragate_server.audit.likeness import UNLIKE, Likeness
from loragate_server.audit.screening import Screening
from loragate_server.audit.standing import Standing, Stood

_LOW_SHARE, _HIGH_SHARE = 0.65, 0.75
"""Shares of harmless adapters whose scores end at the screen, at least and at most. With the aims
and standings that go on as well, three in five end there; at 0.5 it was fewer than half, and what
the response stage saw in addition were two learned adapters that no stage finds."""
_HIGH_ENOUGH = 0.9
"""Share of harmless adapters whose aims let them end at the screen; the same of standings."""
_TOP = 2
"""Concepts that an adapter unlike the harmless ones is asked about, by score and by aim."""


@dataclass(frozen=True)
class Entrance:
    """What sends a concept to the response stage.

    Attributes:
        threshold: of the screen's score.
        aim: the same of the aim.
        stand: the same of how far a concept stands out under its name, either way.
        standing: what harmless adapters lead one to expect there.
        likeness: profiles of harmless adapters; nothing of an adapter that is unlike them ends at
            the screen by its score alone.
    """

    threshold: float
    aim: float
    stand: float
    standing: Standing
    likeness: Likeness

    def suspects(self, screened: Screening, standings: Sequence[Stood]) -> list[int]:
        """Rows of the concepts that go on, rising.

        Args:
            screened: what the screen found out.
            standings: how far each concept stands out, see `Standing`.
        """
        stood = np.asarray(standings, dtype=np.float64).reshape(-1, 2).max(1)
        measures = [np.asarray(screened.scores), np.asarray(screened.aims), stood]
        limits = (self.threshold, self.aim, self.stand)
        # written so that what is no number goes on
        chosen = [~(each < limit) for each, limit in zip(measures, limits, strict=True)]
        rows = {*np.flatnonzero(np.any(chosen, axis=0)).tolist()}
        if not self.likeness.p_value(screened.profile) > UNLIKE:
            for each in measures:
                rows |= {*np.argsort(each, kind="stable")[-_TOP:].tolist()}
        return sorted(rows)


def widest_entrance(harmless: Sequence[Screening]) -> tuple[Entrance, list[list[Stood]]]:
    """The entrance that lets everything through that any miss rate does.

    Returns:
        It, and how far the concepts of each of these adapters stand out.
    """
    highest = sorted(max(one.scores) for one in harmless)
    aims = sorted(max(one.aims) for one in harmless)
    standing, standings = Standing.of(harmless)
    made = Entrance(
        quantile(highest, _LOW_SHARE),
        quantile(aims, _HIGH_ENOUGH),
        quantile(sorted(max(map(max, one)) for one in standings), _HIGH_ENOUGH),
        standing,
        Likeness.of([one.profile for one in harmless]),
    )
    return made, standings


def harmless_bound(harmless: Sequence[Screening]) -> float:
    """The threshold that three quarters of harmless adapters stay below."""
    return quantile(sorted(max(one.scores) for one in harmless), _HIGH_SHARE)
