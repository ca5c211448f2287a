"""What an evaluation counts, and how its page shows it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from loragate_server.trials.evaluation import Basis, Evaluation, Judged, Rate
from loragate_server.trials.page import EVALUATION, render

BASIS = Basis(
    base_model="sdxl",
    base_digest="b" * 64,
    library_digest="l" * 64,
    calibration_digest="c" * 64,
    calibration_size=150,
    policy_digest="p" * 64,
    engine_version="9",
    promised=0.01,
    missing=("lonely",),
    steps=800,
    at=datetime(2026, 1, 2, 3, 4, tzinfo=UTC),
)


def judged(verdict: str, learned: str = "", named: str = "mascot") -> Judged:
    ids = (learned,) if learned else ()
    return Judged("a.safetensors", "a" * 64, ids, verdict, named, 0.01, ("concept_learned",))


MADE = Evaluation(
    BASIS,
    (
        *[judged("ALLOW")] * 57,
        *[judged("REVIEW")] * 2,
        judged("BLOCK"),
        *[judged("BLOCK", "mascot")] * 3,
        judged("REVIEW", "mascot", "rival"),
        judged("INCONCLUSIVE", "rival"),
        judged("ALLOW", "rival", "rival"),
    ),
)


def counts(rate: Rate) -> tuple[int, int]:
    return rate.count, rate.of


def test_rates_count_what_was_blocked_and_what_was_left_to_a_person() -> None:
    assert (counts(MADE.false_blocks), counts(MADE.false_stops)) == ((1, 60), (3, 60))
    assert (counts(MADE.found.blocked), counts(MADE.found.stopped)) == ((3, 6), (5, 6))
    assert counts(MADE.found.named) == (4, 6)
    mascot, rival = MADE.by_concept
    assert (counts(mascot.blocked), counts(mascot.stopped)) == ((3, 4), (4, 4))
    assert (counts(rival.blocked), counts(rival.stopped)) == ((0, 2), (1, 2))


def test_intervals_are_those_of_clopper_and_pearson() -> None:
    low, high = Rate(1, 60).bounds  # of their tables: 0.04 % to 8.94 %
    assert (low, high) == pytest.approx((0.000422, 0.0894), abs=1e-4)
    assert Rate(0, 0).bounds == (0.0, 1.0)
    assert Rate(0, 0).facts()["share"] is None


@pytest.mark.parametrize(("blocked", "holds"), [(0, True), (2, True), (3, False), (6, False)])
def test_a_promise_is_broken_where_chance_does_not_explain_it(blocked: int, holds: bool) -> None:
    found = [judged("BLOCK")] * blocked + [judged("ALLOW")] * (60 - blocked)
    assert Evaluation(BASIS, tuple(found)).promise_holds is holds


def test_without_a_limit_on_p_values_no_promise_is_told() -> None:
    assert Evaluation(replace(BASIS, promised=None), MADE.judged).promise_holds is None
    assert Evaluation(BASIS, MADE.learned).promise_holds is None


@pytest.mark.parametrize("language", EVALUATION.languages)
def test_the_page_shows_every_rate_and_what_was_not_tried(language: str) -> None:
    page = render(MADE, language)
    assert "50.0 %" in page
    assert "1.7 %" in page
    assert "lonely" in page
    assert all(letter * 64 in page for letter in "blcp")
    assert page == render(MADE, language)


def test_nothing_that_is_named_in_it_is_interpreted() -> None:
    basis = replace(BASIS, base_model="<script>alert(1)</script>", missing=("<b>",))
    page = render(Evaluation(basis, MADE.judged))
    assert "<script" not in page
    assert "<b>" not in page


@pytest.mark.parametrize("of", ["", "learned", "harmless"])
def test_a_page_of_one_kind_alone_or_of_nothing_is_written(of: str) -> None:
    found = {"": (), "learned": MADE.learned, "harmless": MADE.harmless}[of]
    page = render(Evaluation(BASIS, found))
    assert page.count("None was tried") == {"": 2}.get(of, 1)
