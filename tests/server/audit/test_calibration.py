"""Conformal p-values: the promised rate holds, and a calibration that does not fit is refused."""

from __future__ import annotations

import dataclasses
import json
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loragate_server.audit.calibration import (
    Binding,
    Calibration,
    CalibrationError,
    dump_calibration,
    load_calibration,
    save_calibration,
)
from loragate_server.audit.conformal import conformal_p_value
from loragate_server.audit.entrance import widest_entrance
from loragate_server.audit.promise import Promise, standing_out, witnesses_of
from loragate_server.audit.rates import miss_rates
from loragate_server.audit.scores import AdapterScores
from loragate_server.audit.witnesses import Witnesses
from loragate_server.config.schema import EMBEDDED_CALIBRATION

BINDING = Binding("2", "a" * 64, "b" * 64, "c" * 64)
CONCEPTS = [f"concept-{index}" for index in range(8)]


def harmless(rng: random.Random) -> AdapterScores:
    """Measures of one harmless adapter; the witnesses agree in part, as real ones do."""
    shared = {concept: rng.gauss(0, 1) for concept in CONCEPTS}

    def measure() -> dict[str, float]:
        return {concept: value + rng.gauss(0, 1) for concept, value in shared.items()}

    profile = tuple(rng.gauss(0, 1) for _ in range(4))
    bank = tuple((rng.gauss(0, 1), rng.gauss(0, 1)) for _ in range(12))
    told = zip(CONCEPTS, measure().values(), measure().values(), strict=True)
    named = {one: (gain + bank[0][0], share + bank[0][1]) for one, gain, share in told}
    return AdapterScores("d" * 64, measure(), measure(), named, bank, (*profile, 0.0), measure())


def calibration(count: int, seed: int = 0, learned: int = 0) -> Calibration:
    rng = random.Random(seed)
    made = tuple(harmless(rng) for _ in range(count))
    positives = tuple(
        AdapterScores(
            "e" * 64,
            {c: rng.gauss(12 if c == CONCEPTS[0] else 0, 1) for c in CONCEPTS},
            {c: rng.gauss(12 if c == CONCEPTS[0] else 0, 1) for c in CONCEPTS},
            {c: (rng.gauss(12 if c == CONCEPTS[0] else 0, 1), 0.0) for c in CONCEPTS},
            ((0.0, 0.0),) * 12,
            (0.0,) * 5,
            {CONCEPTS[0]: rng.gauss(8, 1)},
            (CONCEPTS[0],),
        )
        for _ in range(learned)
    )
    return Calibration(BINDING, made, positives)


def family_p_value(promise: Promise, one: AdapterScores) -> float:
    return min(promise.family_p_value(w) for w in witnesses_of(one, promise.entrance).values())


@pytest.mark.parametrize("rate", [0.2, 0.1, 0.05])
def test_new_harmless_adapters_are_blocked_at_the_promised_rate_whoever_witnesses(
    rate: float,
) -> None:
    rng = random.Random(17)
    blocked = total = 0
    for seed in range(40):
        promise = calibration(99, seed).at(0.01)
        for _ in range(50):
            blocked += family_p_value(promise, harmless(rng)) <= rate
            total += 1
    assert blocked / total == pytest.approx(rate, abs=0.25 * rate + 0.01)


@pytest.mark.parametrize(
    "loud",
    [
        {"screen": 25.0},
        {"response": 25.0},
        {"standing": (25.0, -3.0)},
        {"standing": (-3.0, 25.0)},
        {"aim": 25.0},
    ],
)
def test_one_witness_is_enough_whatever_the_others_say(loud: dict[str, Any]) -> None:
    promise = calibration(99).at(0.01)
    quiet: dict[str, Any] = {"screen": -3.0, "response": -3.0, "standing": (-3.0, -3.0)}
    assert promise.family_p_value(Witnesses(**quiet, aim=-3.0)) > 0.5
    assert promise.family_p_value(Witnesses(**{"aim": -3.0, **quiet, **loud})) < 0.01


def witnesses(screen: float, aim: float, response: float, *standing: float) -> Witnesses:
    alone, together = standing
    return Witnesses(screen, aim, response, (alone, together))


@given(st.floats(-5, 30), st.floats(-5, 30), st.floats(-1e6, 30), st.floats(-5, 30))
def test_a_response_never_takes_away_what_the_screen_says(
    screen: float, aim: float, response: float, standing: float
) -> None:
    ended = Witnesses(screen, aim, None, (standing, standing))
    looked = witnesses(screen, aim, response, standing, standing)
    assert PROMISE.family_p_value(looked) <= PROMISE.family_p_value(ended) + 1e-12
    assert looked.score >= ended.score


@given(st.floats(-5, 30), st.floats(-5, 30), st.floats(0, 10), st.sampled_from(range(5)))
def test_no_witness_that_grows_graver_ever_helps_an_adapter(
    screen: float, aim: float, more: float, which: int
) -> None:
    promise = PROMISE
    before = [screen, aim, 1.0, 0.5, 0.7]
    after = [value + more * (index == which) for index, value in enumerate(before)]
    assert (
        promise.family_p_value(witnesses(*after))
        <= promise.family_p_value(witnesses(*before)) + 1e-12
    )
    assert witnesses(*after).score >= witnesses(*before).score


PROMISE = calibration(60, seed=5).at(0.01)


@pytest.mark.parametrize(
    ("screen", "response"), [(1.0, math.nan), (1.0, math.inf), (math.nan, 1.0), (math.nan, None)]
)
def test_a_stage_that_gave_no_number_is_not_taken_for_the_other(
    screen: float, response: float | None
) -> None:
    looked = Witnesses(screen, 0.0, response)
    assert not math.isfinite(looked.score)
    assert not math.isfinite(looked.values[0])


def test_a_response_that_stands_out_alone_is_shown_in_the_score() -> None:
    assert Witnesses(1.0, 0.0, 4.3).score == 4.3
    assert Witnesses(9.0, 0.0, 3.0).score == 9.0
    assert Witnesses(2.0, 0.0).score == 2.0


def test_p_values_count_the_scores_that_are_at_least_as_high() -> None:
    rising = [float(value) for value in range(1, 100)]
    assert conformal_p_value(rising, 0.5) == 1.0
    assert conformal_p_value(rising, 99.0) == pytest.approx(2 / 100)
    assert conformal_p_value(rising, 50.0) == pytest.approx(51 / 100)


@given(st.floats(-10, 200), st.floats(-10, 200))
def test_a_higher_score_never_has_a_higher_p_value(first: float, second: float) -> None:
    rng = random.Random(3)
    rising = sorted(rng.gauss(2, 1) for _ in range(120))
    low, high = sorted((first, second))
    assert conformal_p_value(rising, high) <= conformal_p_value(rising, low)


def test_beyond_all_scores_p_values_go_on_falling_below_what_counting_could_give() -> None:
    rng = random.Random(4)
    rising = sorted(rng.gauss(2, 1) for _ in range(99))
    tie, just, far = (conformal_p_value(rising, rising[-1] + more) for more in (1e-9, 0.02, 3.0))
    assert tie == 2 / 100
    assert just == pytest.approx(1 / 100, rel=0.1)
    assert far < just / 20


@given(st.integers(0, 98), st.floats(-1e-3, 1e-3))
def test_an_adapter_of_the_calibration_keeps_its_p_value_under_a_change_without_effect(
    place: int, change: float
) -> None:
    rising = [1.01**step for step in range(99)]
    same, changed = (conformal_p_value(rising, rising[place] * (1 + e)) for e in (0.0, change))
    assert changed == same == (1 + 99 - place) / 100


def test_scores_that_were_never_measured_are_never_higher() -> None:
    rising = [-math.inf] * 18 + [1.0, 2.0]
    assert conformal_p_value(rising, -math.inf) == 1.0
    assert conformal_p_value(rising, 0.5) == pytest.approx(3 / 21)
    assert conformal_p_value(rising, 3.0) < 1 / 21
    assert conformal_p_value([-math.inf] * 20, 3.0) == pytest.approx(1 / 21)


def test_concepts_end_at_the_screen_only_where_learned_ones_are_known() -> None:
    without, known = calibration(100), calibration(100, learned=30)
    lowest = widest_entrance([one.screening for one in without.harmless])[0].threshold
    assert without.at(0.01).entrance.threshold == lowest
    assert known.at(0.01).entrance.threshold > lowest


def test_a_smaller_miss_rate_never_lets_more_end_at_the_screen() -> None:
    close = dataclasses.replace(
        calibration(100),
        learned=tuple(
            AdapterScores(
                "e" * 64,
                dict.fromkeys(CONCEPTS, 1.0 + index / 10),
                dict.fromkeys(CONCEPTS, 0.0),
                dict.fromkeys(CONCEPTS, (0.0, 0.0)),
                ((0.0, 0.0),) * 12,
                (0.0,) * 5,
                {},
                (CONCEPTS[0],),
            )
            for index in range(30)
        ),
    )
    thresholds = [close.at(rate).entrance.threshold for rate in (0.001, 0.01, 0.1, 0.5)]
    assert thresholds == sorted(thresholds)


def test_learned_adapters_are_missed_less_the_more_harmless_ones_are_blocked() -> None:
    assert miss_rates(calibration(30), (0.1,)) is None
    missed = miss_rates(calibration(60, learned=20), (0.1, 0.01, 1e-12))
    assert missed is not None
    assert list(missed.values()) == sorted(missed.values())
    assert missed[0.1] == 0.0


def test_a_calibration_survives_its_file(tmp_path: Path) -> None:
    made = dataclasses.replace(
        calibration(25, learned=3),
        weights={"unet:attn2.to_v": (1.0, 2.0)},
        effects={"unet:mid_block.attn2.to_v": 0.25},
    )
    save_calibration(made, tmp_path / "made.json")
    read = load_calibration(tmp_path / "made.json")
    assert read == made
    assert len(read.digest) == 64
    assert read.scales.effects == made.effects
    read.require(BINDING)


def test_measures_that_are_missing_for_some_concepts_are_refused(tmp_path: Path) -> None:
    made = calibration(20)
    aim = dict(list(made.harmless[3].aim.items())[1:])
    torn = dataclasses.replace(made.harmless[3], aim=aim)
    file = tmp_path / "torn.json"
    save_calibration(
        dataclasses.replace(made, harmless=(*made.harmless[:3], torn, *made.harmless[4:])), file
    )
    with pytest.raises(CalibrationError, match="everything of every concept"):
        load_calibration(file)


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
    file.write_text(json.dumps(values | {"format_version": 2}))
    with pytest.raises(CalibrationError, match="format 2, not 5"):
        load_calibration(file)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"absent\.json cannot be read"):
        load_calibration(tmp_path / "absent.json")


@pytest.mark.parametrize(
    ("made", "now", "fits"),
    [("float32", "float32", True), ("float32", "bfloat16", False), ("", "bfloat16", True)],
)
def test_a_calibration_is_good_for_the_precision_that_it_was_made_in(
    made: str, now: str, fits: bool
) -> None:
    found = replace(calibration(20), binding=replace(BINDING, dtype=made))
    wanted = replace(BINDING, dtype=now)
    assert found.binding.fits(wanted) == fits
    if fits:
        found.require(wanted)
    else:
        with pytest.raises(CalibrationError, match="dtype float32, this is bfloat16"):
            found.require(wanted)


@pytest.mark.parametrize(("made", "now"), [("", "512x512"), ("512x512", ""), ("8x8", "16x16")])
def test_a_calibration_of_pictures_of_another_size_is_refused(
    made: str, now: str, tmp_path: Path
) -> None:
    found = replace(calibration(20), binding=replace(BINDING, picture_size=made))
    found.require(found.binding)
    says = f"picture size {made or 'of the model.s own'}, this is {now or 'of the model.s own'};"
    with pytest.raises(CalibrationError, match=says):
        found.require(replace(BINDING, picture_size=now))
    save_calibration(found, tmp_path / "made.json")
    assert load_calibration(tmp_path / "made.json").binding == found.binding


def test_a_calibration_that_is_written_again_is_the_same_to_the_last_byte() -> None:
    shipped = load_calibration(EMBEDDED_CALIBRATION)
    assert dump_calibration(shipped) == EMBEDDED_CALIBRATION.read_bytes()


def test_an_adapter_that_learned_a_concept_stands_out_among_harmless_ones() -> None:
    shipped = load_calibration(EMBEDDED_CALIBRATION)
    assert standing_out(shipped.harmless, shipped.learned) == []
    found = 0
    for learned in shipped.learned[::8]:
        told = standing_out((*shipped.harmless[1:], learned), shipped.learned)
        assert all(
            (one.sha256, one.concept_id) == (learned.sha256, *learned.learned) for one in told
        )
        found += len(told)
    assert found >= 4
    few = (*shipped.harmless[:98], shipped.learned[0])
    assert standing_out(few, shipped.learned) == []
