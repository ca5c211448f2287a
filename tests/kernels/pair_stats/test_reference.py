"""The reference against the plain formula in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from loragate_kernels import PairStats, pair_stats
from loragate_kernels.pair_stats import reference
from loragate_kernels.pair_stats.reference import TILE_ELEMENTS

Check = Callable[..., None]
Make = Callable[..., tuple[Tensor, Tensor]]
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SIZES = (0, 1, 2, 15, 16, 17, 63, 255, 1000)


def run(*pairs: tuple[Tensor, Tensor]) -> PairStats:
    return pair_stats(pairs, backend="reference")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("numel", SIZES)
def test_every_size_and_type_matches_the_formula(
    numel: int, dtype: torch.dtype, make_pair: Make, assert_matches: Check
) -> None:
    pair = make_pair(3, numel, dtype=dtype)
    assert_matches(run(pair), [pair])


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("offset", [-1, 0, 1])
def test_tile_edges_match_the_formula(
    offset: int, rows: int, make_pair: Make, assert_matches: Check
) -> None:
    pair = make_pair(rows, TILE_ELEMENTS + offset)
    assert_matches(run(pair), [pair])


def test_many_short_rows_fill_several_tiles(
    make_pair: Make, assert_matches: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "TILE_ELEMENTS", 64)
    pairs = [make_pair(29, 10), make_pair(5, 200), make_pair(4, 64), make_pair(3, 63)]
    assert_matches(run(*pairs), pairs)


def test_a_long_sum_of_small_terms_after_a_large_one_loses_nothing(assert_matches: Check) -> None:
    base = torch.full((1, 3_000_000), 1e-3)
    base[0, 0] = 30.0
    pair = (base, torch.zeros_like(base))
    assert_matches(run(pair), [pair])


RAGGED = st.lists(
    st.tuples(
        st.integers(0, 4),
        st.sampled_from([(), (0,), (1,), (17,), (3, 5), (2, 3, 4), (40,)]),
        st.sampled_from(DTYPES),
        st.integers(0, 1000),
        st.sampled_from([1e-18, 1e-4, 1.0, 100.0, 1e18]),
    ),
    min_size=1,
    max_size=8,
)


def ragged(plan: list[Any], make_pair: Make) -> list[tuple[Tensor, Tensor]]:
    pairs = []
    for rows, shape, dtype, seed, scale in plan:
        # float16 reaches from 6e-8 to 65504 only
        fitting = min(max(scale, 1e-4), 100.0) if dtype is torch.float16 else scale
        pairs.append(make_pair(rows, *shape, dtype=dtype, seed=seed, scale=fitting))
    return pairs


@settings(deadline=None)
@given(plan=RAGGED)
def test_ragged_lists_match_the_formula(
    plan: list[Any], make_pair: Make, assert_matches: Check
) -> None:
    pairs = ragged(plan, make_pair)
    assert_matches(run(*pairs), pairs)


@settings(deadline=None)
@given(plan=RAGGED, randomness=st.randoms(use_true_random=False))
def test_the_order_of_the_list_changes_no_bit_of_a_row(
    plan: list[Any], randomness: Any, make_pair: Make
) -> None:
    pairs = ragged(plan, make_pair)
    order = list(range(len(pairs)))
    randomness.shuffle(order)
    straight, shuffled = run(*pairs), run(*(pairs[index] for index in order))
    for place, index in enumerate(order):
        for name in ("sum_sq_diff", "sum_sq_base", "sum_sq_adapted", "sum_product"):
            first = getattr(straight, name)[straight.rows_of(index)]
            second = getattr(shuffled, name)[shuffled.rows_of(place)]
            assert torch.equal(first, second)


@settings(deadline=None, max_examples=5)
@given(seed=st.integers(0, 1000), randomness=st.randoms(use_true_random=False))
def test_three_hundred_ragged_layers_match_the_formula_in_any_order(
    seed: int, randomness: Any, make_pair: Make, assert_matches: Check
) -> None:
    sizes = [randomness.choice([0, 1, 15, 16, 17, 63, 500, 1000]) for _ in range(300)]
    pairs = [
        make_pair(randomness.randint(0, 2), size, dtype=DTYPES[number % 3], seed=seed + number)
        for number, size in enumerate(sizes)
    ]
    straight = run(*pairs)
    assert_matches(straight, pairs)
    order = list(range(300))
    randomness.shuffle(order)
    shuffled = run(*(pairs[index] for index in order))
    for place, index in enumerate(order):
        first = straight.sum_sq_diff[straight.rows_of(index)]
        assert torch.equal(first, shuffled.sum_sq_diff[shuffled.rows_of(place)])


VALUES = st.lists(st.tuples(st.floats(width=32), st.floats(width=32)), min_size=1, max_size=40)


@settings(deadline=None)
@given(values=VALUES)
@example(values=[(1.0, 1.0), (float("inf"), float("inf"))])
@example(values=[(float("nan"), 0.0)])
@example(values=[(3e38, -3e38), (1.0, 2.0)])
@example(values=[(1e-45, 0.0)])
@example(values=[(-0.0, 0.0)])
@example(values=[(1e-23, 1.1e-23), (0.0, 0.0)])
@example(values=[(1e30, 1.0000001e30)])
def test_any_float32_values_match_the_formula(
    values: list[tuple[float, float]], assert_matches: Check
) -> None:
    both = torch.tensor(values, dtype=torch.float32).t().contiguous()
    pair = (both[:1], both[1:])
    base, adapted = (each.double() for each in pair)
    difference = (base.float() - adapted.float()).double()
    finite = bool((base - adapted).isfinite().all())
    # a difference of finite numbers may be infinite in float32, and is then reported so
    if finite and not bool(difference.isfinite().all()):
        assert float(run(pair).max_abs_diff) == math.inf
    else:
        assert_matches(run(pair), [pair])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("side", [0, 1])
def test_a_row_that_is_not_finite_is_marked_and_its_neighbours_are_not(
    side: int, value: float, dtype: torch.dtype, make_pair: Make, assert_matches: Check
) -> None:
    pair = make_pair(3, 50, dtype=dtype)
    pair[side][1, 7] = value
    pair[side][1, 8] = value
    stats = run(pair)
    assert_matches(stats, [pair])
    assert stats.nonfinite_count.tolist() == [0, 2, 0]
    assert stats.sum_sq_diff.isfinite().tolist() == [True, False, True]


def test_infinities_of_one_sign_do_not_cancel() -> None:
    both = torch.full((1, 4), float("inf"))
    stats = run((both, both.clone()))
    assert stats.nonfinite_count.tolist() == [4]
    assert stats.sum_sq_diff.isnan().all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_equal_tensors_differ_by_exactly_nothing(dtype: torch.dtype, make_pair: Make) -> None:
    base, _ = make_pair(4, 999, dtype=dtype)
    stats = run((base, base.clone()))
    assert stats.sum_sq_diff.tolist() == stats.max_abs_diff.tolist() == [0.0] * 4
    assert torch.equal(stats.sum_sq_base, stats.sum_sq_adapted)


def test_the_opposite_differs_by_twice_itself(make_pair: Make) -> None:
    base, _ = make_pair(2, 300)
    stats = run((base, -base))
    torch.testing.assert_close(stats.sum_sq_diff, 4 * stats.sum_sq_base)
    torch.testing.assert_close(stats.sum_product, -stats.sum_sq_base)


def test_a_tiny_difference_of_large_numbers_is_not_lost(assert_matches: Check) -> None:
    base = torch.full((1, 1000), 1000.0)
    adapted = base.clone()
    adapted[0, 500] = torch.nextafter(torch.tensor(1000.0), torch.tensor(2000.0))
    stats = run((base, adapted))
    assert_matches(stats, [(base, adapted)])
    assert float(stats.sum_sq_diff) == float(stats.max_abs_diff) ** 2 > 0


@pytest.mark.parametrize("scale", [1e-45, 1e-40, 1e-30, 1e-22])
def test_numbers_whose_squares_vanish_in_float32_are_summed_exactly(
    scale: float, assert_matches: Check
) -> None:
    base = torch.arange(1, 65, dtype=torch.float32)[None] * scale
    pair = (base, base * 2)
    stats = run(pair)
    assert_matches(stats, [pair])
    assert float(stats.sum_sq_diff) > 0


def test_numbers_whose_squares_overflow_float32_are_summed_exactly(assert_matches: Check) -> None:
    base = torch.arange(1, 65, dtype=torch.float32)[None] * 1e30
    pair = (base, -base)
    stats = run(pair)
    assert_matches(stats, [pair])
    assert bool(stats.sum_sq_diff.isfinite())


def test_float16_at_its_limit_is_summed_exactly(assert_matches: Check) -> None:
    base = torch.full((2, 1000), 65504.0, dtype=torch.float16)
    pair = (base, -base)
    assert_matches(run(pair), [pair])


def test_swapping_the_two_swaps_their_sums_and_nothing_else(make_pair: Make) -> None:
    base, adapted = make_pair(3, 777)
    one, other = run((base, adapted)), run((adapted, base))
    for name in ("sum_sq_diff", "sum_product", "max_abs_diff"):
        assert torch.equal(getattr(one, name), getattr(other, name))
    assert torch.equal(one.sum_sq_base, other.sum_sq_adapted)


def test_a_rerun_gives_the_same_bits(make_pair: Make) -> None:
    pairs = [make_pair(2, 5000), make_pair(7, 33, dtype=torch.bfloat16)]
    first = run(*pairs)
    for _ in range(10):
        again = run(*pairs)
        assert torch.equal(first.sum_sq_diff, again.sum_sq_diff)
        assert torch.equal(first.sum_product, again.sum_product)


def test_the_operands_are_left_as_they_were(make_pair: Make) -> None:
    base, adapted = make_pair(2, 100)
    copies = base.clone(), adapted.clone()
    run((base, adapted))
    assert torch.equal(base, copies[0])
    assert torch.equal(adapted, copies[1])


def test_operands_that_need_gradients_give_results_that_do_not(make_pair: Make) -> None:
    base, adapted = (each.requires_grad_() for each in make_pair(2, 100))
    assert not run((base, adapted)).sum_sq_diff.requires_grad


def test_the_result_says_how_it_was_computed(make_pair: Make) -> None:
    stats = run(make_pair(1, 5))
    assert stats.backend == "reference"
    assert stats.provenance == {
        "backend": "reference",
        "torch": torch.__version__,
        "device": "cpu",
        "tile": str(TILE_ELEMENTS),
    }
