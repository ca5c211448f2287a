"""`Measures`: what the stages of an audit say of every wanted concept, brought together.

A library may have thousands of concepts, so p-values are asked for all of them at once, and what
the response stage adds to a few is put in their places.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from loragate_server.audit.evidence import ConceptEvidence
from loragate_server.audit.expecting import Expected, heard_of
from loragate_server.audit.promise import Promise
from loragate_server.audit.stages import Responded, Screened
from loragate_server.audit.witnesses import values_of
from loragate_server.concepts.probes import ProbeSet

_Numbers = list[float]
_Maybe = Sequence[float | None]


@dataclass(frozen=True)
class Measures:
    """One value per wanted concept; see `ConceptEvidence`.

    Attributes:
        looked: by row of a concept that the response stage looked at, its place there.
    """

    looked: Mapping[int, int]
    responded: Responded | None
    score: _Numbers
    p_value: _Numbers
    degree: _Numbers
    family_p_value: _Maybe
    screen_score: _Maybe
    response_score: _Maybe
    degree_p_value: _Maybe

    @classmethod
    def of(
        cls,
        wanted: Sequence[int],
        expected: Expected,
        screened: Screened | None,
        responded: Responded | None,
        promise: Promise | None,
        calibrated: Mapping[int, int],
    ) -> Measures:
        """Brings together what was found about the wanted concepts.

        Args:
            wanted: indices of forbidden concepts.
            expected: which of them went on, and how far they stand out.
            screened: the screen's view; None where there was none, and then all went on.
            responded: that of the response stage; None where nothing went on.
            promise: of the calibration, None without one.
            calibrated: index of a concept to its row in the calibration.
        """
        count = len(wanted)
        looked: dict[int, int] = {}
        if responded is not None:
            looked = {row: place for place, row in enumerate(expected.suspects)}
        second = {
            row: float(responded.scores.score[place])
            for row, place in looked.items()
            if responded is not None
        }
        response: _Maybe = [second.get(row) for row in range(count)]
        none: _Maybe = [None] * count
        if screened is None:
            assert responded is not None  # noqa: S101 - one of the stages looked at them
            alone = responded.scores.p_value.tolist(), responded.degree.tolist()
            tail, degree = ([each[looked[row]] for row in range(count)] for each in alone)
            score = [second[row] or 0.0 for row in range(count)]
            return cls(looked, responded, score, tail, degree, none, none, response, none)
        score, tail = list(screened.screening.scores), screened.scores.p_value.tolist()
        for row, value in second.items():
            heard = heard_of(row, screened, value, expected)
            assert heard is not None  # noqa: S101 - there was a screen
            score[row] = heard.score
            assert responded is not None  # noqa: S101 - it looked at this one
            tail[row] = _of_two(tail[row], float(responded.scores.p_value[looked[row]]))
        family: list[float | None] = [None] * count
        aimed: list[float | None] = [None] * count
        if promise is not None:
            rows, found = _weighed(wanted, expected, screened, second, promise, calibrated)
            for row, p_value, family_p_value, aim_p_value in zip(rows, *found, strict=True):
                tail[row], family[row], aimed[row] = p_value, family_p_value, aim_p_value
        degree, screen = screened.degree.tolist(), list(screened.screening.scores)
        return cls(looked, responded, score, tail, degree, family, screen, response, aimed)

    @classmethod
    def of_screen(
        cls,
        wanted: Sequence[int],
        screened: Screened,
        promise: Promise,
        calibrated: Mapping[int, int],
    ) -> Measures:
        """What a screen alone says, whatever would have gone on to the response stage."""
        expected = Expected.of(screened, promise, wanted, calibrated)
        expected = Expected(expected.standings, ())
        return cls.of(wanted, expected, screened, None, promise, calibrated)

    def added_to(self, concepts: Sequence[ConceptEvidence]) -> tuple[ConceptEvidence, ...]:
        """Evidence about the same concepts, each as grave as either says.

        What was measured stage by stage stays as it is. Of a concept that no calibration speaks
        for nothing is added.
        """
        return tuple(
            self._graver(own, row) if own.family_p_value is not None else own
            for row, own in enumerate(concepts)
        )

    def _graver(self, own: ConceptEvidence, row: int) -> ConceptEvidence:
        family, aimed = self.family_p_value[row], self.degree_p_value[row]
        if family is None or own.family_p_value is None or family >= own.family_p_value:
            return own
        return replace(
            own,
            score=own.score if math.isnan(own.score) else max(own.score, self.score[row]),
            p_value=min(own.p_value, self.p_value[row]),
            family_p_value=family,
            degree_p_value=min(one for one in (own.degree_p_value, aimed) if one is not None),
        )

    def concepts(self, probes: ProbeSet, wanted: Sequence[int]) -> tuple[ConceptEvidence, ...]:
        """The evidence about the wanted concepts, in their order."""
        return tuple(
            ConceptEvidence(
                concept_id=concept.concept_id,
                concept_name=concept.name,
                category=concept.category,
                severity=concept.severity,
                score=self.score[row],
                p_value=self.p_value[row],
                degree=self.degree[row],
                error_change_by_time=self._error_change(row),
                family_p_value=self.family_p_value[row],
                screen_score=self.screen_score[row],
                response_score=self.response_score[row],
                degree_p_value=self.degree_p_value[row],
                stage="response" if row in self.looked else "screen",
                hands=len(concept.hands),
            )
            for row, concept in enumerate(probes.concepts[index] for index in wanted)
        )

    def _error_change(self, row: int) -> dict[str, float]:
        place = self.looked.get(row)
        if self.responded is None or place is None:
            return {}
        return self.responded.error_change(place)


def _weighed(
    wanted: Sequence[int],
    expected: Expected,
    screened: Screened,
    second: Mapping[int, float],
    promise: Promise,
    calibrated: Mapping[int, int],
) -> tuple[list[int], list[list[float]]]:
    """Rows of the concepts that harmless adapters were asked about, and their three p-values."""
    rows = [row for row, index in enumerate(wanted) if index in calibrated]
    if not rows:
        return [], [[], [], []]
    screening = screened.screening
    values = values_of(screening.scores, screening.aims, expected.standings, second)
    weighed = promise.weigh([calibrated[wanted[row]] for row in rows], values[:, rows])
    found = (weighed.p_value, weighed.family_p_value, weighed.aim_p_value)
    return rows, [each.tolist() for each in found]


def _of_two(screen: float, response: float) -> float:
    """The p-value of the stage that stands out more; either could have, so it is doubled."""
    return min(1.0, 2 * min(screen, response))
