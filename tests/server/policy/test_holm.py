"""Holm's correction against values computed by hand and against its definition."""

import math

from hypothesis import given
from hypothesis import strategies as st

from loragate_server.policy.holm import holm_adjusted


def test_adjusted_values_equal_those_computed_by_hand() -> None:
    adjusted = holm_adjusted([0.01, 0.04, 0.03, 0.005])
    assert [round(p, 9) for p in adjusted] == [0.03, 0.06, 0.06, 0.02]


def test_one_or_no_value_needs_no_correction() -> None:
    assert holm_adjusted([0.2]) == [0.2]
    assert holm_adjusted([]) == []


def test_a_value_that_is_no_number_stays_so_and_makes_no_other_milder() -> None:
    adjusted = holm_adjusted([math.nan, 0.01, 0.02])
    assert math.isnan(adjusted[0])
    assert adjusted[1:] == [0.02, 0.02]


probabilities = st.floats(min_value=0, max_value=1)


@given(st.lists(probabilities, min_size=1, max_size=20))
def test_adjusted_values_are_probabilities_keep_the_order_and_are_never_smaller(
    raw: list[float],
) -> None:
    adjusted = holm_adjusted(raw)
    assert all(a >= r for a, r in zip(adjusted, raw, strict=True))
    assert all(0 <= a <= 1 for a in adjusted)
    by_raw = [a for _, a in sorted(zip(raw, adjusted, strict=True))]
    assert by_raw == sorted(by_raw)
    assert min(adjusted) == min(1.0, min(raw) * len(raw))


@given(st.lists(probabilities, min_size=1, max_size=12), st.data())
def test_a_smaller_raw_value_never_raises_any_adjusted_value(
    raw: list[float], data: st.DataObject
) -> None:
    index = data.draw(st.integers(0, len(raw) - 1))
    smaller = list(raw)
    smaller[index] = data.draw(st.floats(min_value=0, max_value=raw[index]))
    before, after = holm_adjusted(raw), holm_adjusted(smaller)
    assert all(a <= b + 1e-12 for a, b in zip(after, before, strict=True))
