"""The reference against the plain formula in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loragate_kernels import _gemm
from loragate_kernels.lora_response import (
    Directions,
    InnerProducts,
    LayerDirections,
    LowRank,
    inner_products,
)

Check = Callable[..., None]
Make = Callable[..., Any]

RANKS = (0, 1, 4, 15, 16, 17, 33, 64, 128, 130)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def products(layers: list[list[LowRank]], directions: Directions) -> InnerProducts:
    return inner_products(layers, directions, backend="reference")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_inner_products_of_every_rank_match_the_formula(
    dtype: torch.dtype,
    make_layer: Make,
    make_directions: Make,
    stacked: Make,
    assert_products: Check,
) -> None:
    layers = [make_layer(*RANKS, dtype=dtype)]
    directions = make_directions(8, 0, 24, 1, 17, 24, dtype=dtype)
    assert_products(products(layers, stacked(directions)), layers, [directions])


def test_sixteen_bit_directions_are_widened_in_tiles(
    make_layer: Make,
    make_directions: Make,
    stacked: Make,
    assert_products: Check,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_gemm, "TILE_ELEMENTS", 3 * 40)
    layers, directions = [make_layer(5, 6)], make_directions(8, 3, dtype=torch.bfloat16)
    assert_products(products(layers, stacked(directions)), layers, [directions])


def test_weights_and_directions_may_be_of_different_types(
    make_layer: Make, make_directions: Make, stacked: Make, assert_products: Check
) -> None:
    low, high = make_layer(3, dtype=torch.float16), make_layer(5, seed=1)
    mixed = LowRank(low[0].down, make_layer(3, dtype=torch.bfloat16)[0].up, 2.0)
    layers = [[*low, *high, mixed]]
    directions = make_directions(2, 24, dtype=torch.bfloat16)
    assert_products(products(layers, stacked(directions)), layers, [directions])


def test_long_rows_stay_within_the_tolerance(
    make_layer: Make, make_directions: Make, stacked: Make, assert_products: Check
) -> None:
    layers = [make_layer(16, 64, d_out=1280, d_in=2048)]
    directions = make_directions(8, 8, d_out=1280, d_in=2048)
    assert_products(products(layers, stacked(directions)), layers, [directions])


RAGGED = st.lists(
    st.tuples(
        st.integers(1, 30),
        st.integers(1, 30),
        st.lists(st.integers(0, 40), min_size=3, max_size=3),
        st.lists(st.sampled_from([0, 1, 2, 8, 9, 24]), min_size=2, max_size=2),
        st.sampled_from(DTYPES),
    ),
    min_size=1,
    max_size=3,
)


@settings(deadline=None, max_examples=25)
@given(plan=RAGGED)
def test_ragged_lists_match_the_formula(
    plan: list[Any],
    make_layer: Make,
    make_directions: Make,
    stacked: Make,
    assert_products: Check,
) -> None:
    layers, directions = [], []
    for seed, (d_out, d_in, ranks, slots, dtype) in enumerate(plan):
        layers.append(make_layer(*ranks, d_out=d_out, d_in=d_in, dtype=dtype, seed=seed))
        # an inner product may cancel in full where a delta has one row, so no narrower type here
        directions.append(make_directions(*slots, d_out=d_out, d_in=d_in, seed=seed))
    assert_products(products(layers, stacked(*directions)), layers, directions)


@settings(deadline=None, max_examples=25)
@given(
    ranks=st.lists(st.integers(0, 70), min_size=2, max_size=6),
    d_in=st.sampled_from([8, 40, 77, 320]),
    randomness=st.randoms(use_true_random=False),
)
def test_the_order_of_adapters_changes_no_bit_of_their_results(
    ranks: list[int],
    d_in: int,
    randomness: Any,
    make_layer: Make,
    make_directions: Make,
    stacked: Make,
) -> None:
    adapters, directions = make_layer(*ranks, d_in=d_in), make_directions(8, 24, 3, d_in=d_in)
    order = list(range(len(ranks)))
    randomness.shuffle(order)
    shuffled = [adapters[index] for index in order]
    values = products([adapters], stacked(directions)).values[0]
    assert torch.equal(values[order], products([shuffled], stacked(directions)).values[0])


def test_a_rerun_gives_the_same_bits(
    make_layer: Make, make_directions: Make, stacked: Make
) -> None:
    layers, directions = [make_layer(4, 17)], stacked(make_directions(8, 24))
    for _ in range(3):
        assert torch.equal(products(layers, directions).values, products(layers, directions).values)


def test_an_adapter_of_rank_zero_or_untrained_does_exactly_nothing(
    make_layer: Make, make_directions: Make, stacked: Make
) -> None:
    nothing, fresh = make_layer(0, 4)
    fresh = LowRank(fresh.down, torch.zeros_like(fresh.up))
    found = products([[nothing, fresh]], stacked(make_directions(2, 24)))
    assert found.values.tolist() == [[[0.0, 0.0]] * 2]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("side", ["down", "up"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_weights_that_are_not_finite_spoil_and_mark_their_adapter_alone(
    dtype: torch.dtype,
    side: str,
    value: float,
    make_layer: Make,
    make_directions: Make,
    stacked: Make,
) -> None:
    adapters = make_layer(3, 4, 5, dtype=dtype)
    directions = stacked(make_directions(2, 0, 24, dtype=dtype))
    clean = products([adapters], directions)
    getattr(adapters[1], side)[1, 1] = value
    found = products([adapters], directions)
    assert clean.nonfinite.tolist() == [[False, False, False]]
    assert found.nonfinite.tolist() == [[False, True, False]]
    assert found.values[0, 1].isnan().all()
    assert torch.equal(found.values[0, ::2], clean.values[0, ::2])


def test_weights_whose_sum_overflows_are_finite_all_the_same(stacked: Make) -> None:
    huge = LowRank(torch.full((1, 40), 3e38), torch.full((24, 1), 1e-37))
    left, right = torch.zeros(24, 1), torch.zeros(1, 40)
    left[3, 0] = right[0, 5] = 1.0
    result = products([[huge]], stacked([(left, right)]))
    assert result.nonfinite.tolist() == [[False]]
    assert result.values.tolist() == [[[pytest.approx(30.0, rel=1e-6)]]]


def test_a_direction_that_is_not_finite_spoils_its_column_alone(
    make_layer: Make, make_directions: Make, stacked: Make
) -> None:
    layers, directions = [make_layer(3, 0)], make_directions(2, 24, 3, 24)
    directions[0][1][0, 0] = math.nan
    directions[3][0][0, 0] = math.inf
    result = products(layers, stacked(directions))
    assert result.values[0, 0].isfinite().tolist() == [False, True, True, False]
    assert result.values[0, 1].tolist() == [0.0] * 4
    assert not result.nonfinite.any()


def test_directions_are_not_copied(make_directions: Make) -> None:
    pairs = make_directions(3, 0, 5)
    left = torch.cat([up.t() for up, _ in pairs]).contiguous()
    right = torch.cat([down for _, down in pairs])
    known = LayerDirections.low_rank(left, right, (3, 0, 5))
    assert known.left.data_ptr() == left.data_ptr()
    assert known.right.data_ptr() == right.data_ptr()
    assert (known.count, known.d_out, known.d_in) == (3, 24, 40)
    assert known.nbytes == 4 * 8 * (24 + 40)


def test_the_result_says_how_it_was_computed(
    make_layer: Make, make_directions: Make, stacked: Make
) -> None:
    result = products([make_layer(2)], stacked(make_directions(1)))
    assert result.backend == "reference"
    assert result.provenance == {
        "backend": "reference",
        "torch": torch.__version__,
        "device": "cpu",
        "threads": str(torch.get_num_threads()),
        "widen_tile": str(_gemm.TILE_ELEMENTS),
        "gemm": "float32 sums, no tf32",
    }
