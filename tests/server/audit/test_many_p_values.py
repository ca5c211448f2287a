"""P-values of many concepts at once are those of one after the other, to the last bit."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from loragate_server.audit.calibration import Calibration, load_calibration
from loragate_server.audit.conformal import Rising, conformal_p_value, gravity_of
from loragate_server.audit.promise import Promise, promise_of, witnesses_of
from loragate_server.audit.scores import AdapterScores
from loragate_server.audit.standing import Stood
from loragate_server.audit.witnesses import Witnesses, values_of
from loragate_server.config.schema import EMBEDDED_CALIBRATION

scores = st.floats(allow_nan=True, allow_infinity=True)
measured = st.floats(-1e6, 1e6) | st.just(-math.inf)


@given(st.lists(measured, min_size=1, max_size=40), st.lists(scores, min_size=1, max_size=20))
@example([1.0] * 20, [1.0, 1.001, 1.003, 9.0])
@example([0.0], [-sys.float_info.max, sys.float_info.max])
@example([-math.inf] * 20, [3.0, -math.inf, math.inf, math.nan])
def test_every_p_value_is_that_of_the_score_alone(rising: list[float], asked: list[float]) -> None:
    rising.sort()
    alone = [conformal_p_value(rising, score) for score in asked]
    known = Rising(rising)
    assert known.p_values(np.array(asked)).tolist() == alone
    assert known.gravities(np.array(asked)).tolist() == [gravity_of(value) for value in alone]


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return load_calibration(EMBEDDED_CALIBRATION)


@pytest.fixture(scope="module")
def promise(calibration: Calibration) -> Promise:
    return calibration.at(0.01)


def asked_of(promise: Promise, heard: dict[str, Witnesses]) -> list[list[float]]:
    """Concept by concept, as it was before there were many."""
    return [
        [promise.p_value(concept, found) for concept, found in heard.items()],
        [promise.family_p_value(found) for found in heard.values()],
        [promise.aim_p_value(found.aim) for found in heard.values()],
    ]


def at_once(promise: Promise, heard: dict[str, Witnesses]) -> list[list[float]]:
    every = list(heard.values())
    responses = {p: one.response for p, one in enumerate(every) if one.response is not None}
    values = values_of(
        [one.screen for one in every],
        [one.aim for one in every],
        [one.standing for one in every],
        responses,
    )
    assert values.T.tolist() == [list(one.values) for one in every]
    found = promise.weigh(range(len(every)), values)
    return [each.tolist() for each in (found.p_value, found.family_p_value, found.aim_p_value)]


def test_the_shipped_adapters_get_the_same_p_values_at_once_as_alone(
    calibration: Calibration, promise: Promise
) -> None:
    for one in (*calibration.harmless, *calibration.learned):
        heard = witnesses_of(one, promise.entrance)
        assert at_once(promise, heard) == asked_of(promise, heard)


def test_the_shipped_promise_is_what_its_adapters_said_one_by_one(
    calibration: Calibration, promise: Promise
) -> None:
    """As promises were made before: every concept of every adapter on its own."""
    heard = []
    standings = _standings(calibration, promise)
    for one, stand in zip(calibration.harmless, standings, strict=True):
        looked = set(promise.entrance.suspects(one.screening, stand))
        heard.append(
            {
                concept: Witnesses(
                    one.screen[concept],
                    one.aim[concept],
                    one.response.get(concept) if row in looked else None,
                    stand[row],
                )
                for row, concept in enumerate(one.screen)
            }
        )
    highest = [
        tuple(max(column) for column in zip(*(w.values for w in each.values()), strict=True))
        for each in heard
    ]
    families = tuple(tuple(sorted(column)) for column in zip(*highest, strict=True))
    assert promise.families == families
    by_concept: dict[str, list[float]] = {}
    family = []
    for each, own in zip(heard, highest, strict=True):
        others = [_less(list(known), value) for known, value in zip(families, own, strict=True)]
        gravities = {
            concept: max(
                gravity_of(conformal_p_value(known, value))
                for known, value in zip(others, found.values, strict=True)
            )
            for concept, found in each.items()
        }
        family.append(max(gravities.values()))
        for concept, value in gravities.items():
            by_concept.setdefault(concept, []).append(value)
    assert promise.family == tuple(sorted(family))
    assert {k: v.tolist() for k, v in promise.by_concept.items()} == {
        concept: sorted(values) for concept, values in by_concept.items()
    }


def _standings(calibration: Calibration, promise: Promise) -> list[list[Stood]]:
    _, standings = type(promise.entrance.standing).of(
        [one.screening for one in calibration.harmless]
    )
    return standings


def _less(rising: list[float], value: float) -> list[float]:
    rising.remove(value)
    return rising


def test_some_concepts_get_what_they_get_among_all(
    calibration: Calibration, promise: Promise
) -> None:
    one: AdapterScores = calibration.learned[0]
    heard = list(witnesses_of(one, promise.entrance).values())
    values = np.array([found.values for found in heard]).T
    every = promise.weigh(range(len(heard)), values)
    some = promise.weigh([5, 2], values[:, [5, 2]])
    assert some.p_value.tolist() == every.p_value[[5, 2]].tolist()


def test_a_promise_is_made_for_five_thousand_concepts_of_what_they_scored() -> None:
    chance = np.random.default_rng(7)
    names = [f"c{place}" for place in range(5000)]

    def told(count: int) -> list[tuple[float, float]]:
        return [(gain, share) for gain, share in chance.standard_normal((count, 2)).tolist()]

    harmless = [
        AdapterScores(
            f"{place:064x}",
            *(dict(zip(names, chance.standard_normal(5000).tolist(), strict=True)) for _ in "12"),
            dict(zip(names, told(5000), strict=True)),
            tuple(told(8)),
            tuple(chance.random(5).tolist()),
            {},
        )
        for place in range(20)
    ]
    made = promise_of(harmless, (), 0.01)
    assert len(made.by_concept) == 5000
    assert all(len(one) == 20 for one in made.by_concept.values())
