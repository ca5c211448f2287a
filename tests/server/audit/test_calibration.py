"""Conformal p-values: the promised rate holds, and a calibration that does not fit is refused."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loragate_server.audit.calibration import (
    AdapterScores,
    Binding,
    Calibration,
    CalibrationError,
    conformal_p_value,
    final_score,
    load_calibration,
    low_threshold,
    save_calibration,
)

BINDING = Binding("2", "a" * 64, "b" * 64, "c" * 64)
CONCEPTS = [f"concept-{index}" for index in range(8)]


def harmless(rng: random.Random, low: float) -> AdapterScores:
    screen = {concept: rng.gauss(0, 1) for concept in CONCEPTS}
    response = {concept: rng.gauss(0, 1) for concept, s in screen.items() if s >= low}
    return AdapterScores("d" * 64, screen, response)


def calibration(count: int, seed: int = 0, learned: int = 0) -> Calibration:
    rng = random.Random(seed)
    drawn = [{concept: rng.gauss(0, 1) for concept in CONCEPTS} for _ in range(count)]
    low = low_threshold([max(screen.values()) for screen in drawn])
    made = [
        AdapterScores("d" * 64, s, {c: rng.gauss(0, 1) for c, v in s.items() if v >= low})
        for s in drawn
    ]
    positives = tuple(
        AdapterScores("e" * 64, {CONCEPTS[0]: rng.gauss(8, 1)}, {}, (CONCEPTS[0],))
        for _ in range(learned)
    )
    return Calibration(BINDING, low, tuple(made), positives)


def highest(one: AdapterScores, threshold: float) -> float:
    return max(
        final_score(s, one.response[c] if s >= threshold else None) for c, s in one.screen.items()
    )


@pytest.mark.parametrize("rate", [0.2, 0.1, 0.05])
def test_new_harmless_adapters_are_blocked_at_no_more_than_the_promised_rate(rate: float) -> None:
    rng = random.Random(17)
    blocked = total = 0
    for seed in range(40):
        made = calibration(99, seed)
        gate = made.at(0.01)
        for _ in range(50):
            score = highest(harmless(rng, made.low), gate.threshold)
            blocked += gate.family_p_value(score) <= rate
            total += 1
    assert blocked / total == pytest.approx(rate, abs=0.25 * rate + 0.005)


def test_p_values_count_the_scores_that_are_at_least_as_high() -> None:
    rising = [float(value) for value in range(1, 100)]
    assert conformal_p_value(rising, 0.5) == 1.0
    assert conformal_p_value(rising, 99.0) == pytest.approx(2 / 100)
    assert conformal_p_value(rising, 50.0) == pytest.approx(51 / 100)


@given(st.floats(-10, 200), st.floats(-10, 200))
def test_a_higher_score_never_has_a_higher_p_value(first: float, second: float) -> None:
    rising = sorted(random.Random(3).gauss(2, 1) for _ in range(120))
    low, high = sorted((first, second))
    assert conformal_p_value(rising, high) <= conformal_p_value(rising, low)


def test_beyond_all_scores_p_values_go_on_falling_below_what_counting_could_give() -> None:
    rising = sorted(random.Random(4).gauss(2, 1) for _ in range(99))
    just, far = (conformal_p_value(rising, rising[-1] + extra) for extra in (1e-9, 3.0))
    assert just == pytest.approx(1 / 100, rel=1e-3)
    assert far < just / 20


def test_concepts_end_at_the_screen_only_where_learned_ones_are_known() -> None:
    without, known = calibration(100), calibration(100, learned=30)
    assert without.at(0.01).threshold == without.low
    assert known.at(0.01).threshold > known.low


def test_a_smaller_miss_rate_never_lets_more_end_at_the_screen() -> None:
    close = dataclasses.replace(
        calibration(100),
        learned=tuple(
            AdapterScores("e" * 64, {CONCEPTS[0]: 1.0 + index / 10}, {}, (CONCEPTS[0],))
            for index in range(30)
        ),
    )
    thresholds = [close.at(rate).threshold for rate in (0.001, 0.01, 0.1, 0.5)]
    assert thresholds == sorted(thresholds)


def test_a_calibration_survives_its_file(tmp_path: Path) -> None:
    made = calibration(25, learned=3)
    save_calibration(made, tmp_path / "made.json")
    read = load_calibration(tmp_path / "made.json")
    assert read == made
    assert len(read.digest) == 64
    read.require(BINDING)


@pytest.mark.parametrize("name", ["engine_version", "base_digest", "library_digest", "plans"])
def test_a_stale_calibration_is_refused_by_the_name_of_what_changed(name: str) -> None:
    other = dataclasses.replace(BINDING, **{name: "f" * 64})
    with pytest.raises(CalibrationError, match=name.replace("_", " ")):
        calibration(20).require(other)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"binding": 1}', "null", "\x00"])
def test_a_damaged_file_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "broken.json"
    file.write_text(text)
    with pytest.raises(CalibrationError, match="loragate-server calibrate"):
        load_calibration(file)


def test_too_few_harmless_adapters_and_other_formats_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "few.json"
    save_calibration(calibration(19), file)
    with pytest.raises(CalibrationError, match="19 harmless adapters; at least 20"):
        load_calibration(file)
    save_calibration(calibration(20), file)
    values = json.loads(file.read_text())
    file.write_text(json.dumps(values | {"format_version": 3}))
    with pytest.raises(CalibrationError, match="format 3"):
        load_calibration(file)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"absent\.json cannot be read"):
        load_calibration(tmp_path / "absent.json")
