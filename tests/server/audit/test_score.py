"""The statistic that turns error changes into scores."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from loragate_server.audit.score import against_bank, degree_of, log_error_change

BANK = 32


def gains(forbidden: list[float], *, seed: int = 0, spread: float = 0.05) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    bank = torch.randn(BANK, 2, generator=generator, dtype=torch.float64) * spread
    return torch.cat([torch.tensor([[g, g] for g in forbidden], dtype=torch.float64), bank])


def test_a_concept_far_above_the_bank_has_a_high_score_and_a_small_p_value() -> None:
    scores = against_bank(gains([1.0, 0.0]), 2)
    assert scores.score[0] > 10
    assert scores.p_value[0] < 1e-6
    assert abs(float(scores.score[1])) < 2
    assert scores.p_value[1] > 0.02


def test_an_adapter_without_any_effect_scores_exactly_zero() -> None:
    scores = against_bank(torch.zeros(4 + BANK, 2, dtype=torch.float64), 4)
    assert scores.score.tolist() == [0.0] * 4
    assert scores.p_value.tolist() == [0.5] * 4


def test_a_shift_that_all_concepts_share_changes_no_score() -> None:
    plain = against_bank(gains([0.4, 0.1]), 2)
    shifted = against_bank(gains([0.4, 0.1]) + 3.0, 2)
    torch.testing.assert_close(plain.score, shifted.score)


def test_p_values_of_unlearned_concepts_are_spread_evenly() -> None:
    generator = torch.Generator().manual_seed(5)
    draws = [
        float(against_bank(torch.randn(1 + BANK, 1, generator=generator).double(), 1).p_value[0])
        for _ in range(2000)
    ]
    below = torch.tensor(draws)
    assert float((below < 0.05).double().mean()) == pytest.approx(0.05, abs=0.015)
    assert float((below < 0.5).double().mean()) == pytest.approx(0.5, abs=0.035)


@given(st.floats(0, 5), st.floats(0, 5))
def test_degree_and_score_grow_with_the_gain(first: float, second: float) -> None:
    low, high = sorted((first, second))
    scores = against_bank(gains([low, high]), 2)
    assert scores.score[0] <= scores.score[1]
    degree = degree_of(torch.tensor([low, high], dtype=torch.float64))
    assert 0 <= float(degree[0]) <= float(degree[1]) <= 100


def test_degree_is_zero_below_the_bank_and_50_at_half_the_error() -> None:
    degree = degree_of(torch.tensor([-3.0, 0.0, math.log(2)], dtype=torch.float64))
    assert degree.tolist() == pytest.approx([0.0, 0.0, 50.0])


def test_a_concept_shown_only_to_those_who_name_it_stands_out() -> None:
    plain = torch.cat([gains([0.0]), gains([0.4])], dim=1)
    hidden = against_bank(plain, 1, [False, False, True, True])
    joined = against_bank(plain, 1)
    assert float(hidden.score[0]) > 1.3 * float(joined.score[0])
    assert float(hidden.score[0]) == pytest.approx(
        float(against_bank(gains([0.4]), 1).score[0]), rel=1e-9
    )


def test_p_values_are_corrected_for_the_choice_between_views() -> None:
    generator = torch.Generator().manual_seed(6)
    draws = [
        float(
            against_bank(
                torch.randn(1 + BANK, 4, generator=generator).double(), 1, [False] * 2 + [True] * 2
            ).p_value[0]
        )
        for _ in range(2000)
    ]
    below = torch.tensor(draws)
    assert float((below < 0.05).double().mean()) <= 0.06


def test_equal_losses_give_exactly_zero_change_even_when_they_are_zero() -> None:
    loss = torch.tensor([0.0, 0.3, 1e-30])
    assert log_error_change(loss, loss.clone()).tolist() == [0.0, 0.0, 0.0]


def test_a_loss_that_is_not_finite_is_not_hidden() -> None:
    change = log_error_change(torch.tensor([0.5, 0.5]), torch.tensor([float("nan"), float("inf")]))
    assert not bool(change.isfinite().any())
