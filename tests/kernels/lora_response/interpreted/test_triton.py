"""The Triton kernels, interpreted on CPU tensors, against the formula and the reference."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import triton
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loragate_kernels.lora_response import (
    Directions,
    InnerProducts,
    LoraResponseConfig,
    LowRank,
    inner_products,
    launch,
)

Check = Callable[..., None]
Make = Callable[..., Any]

pytestmark = pytest.mark.usefixtures("poisoned_memory")

CONFIG = LoraResponseConfig(fold_block=16)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def products(layers: list[list[LowRank]], directions: Directions) -> InnerProducts:
    return inner_products(layers, directions, backend="triton", config=CONFIG)


def test_memory_is_poisoned() -> None:
    assert torch.empty(3).isnan().all()


@pytest.mark.parametrize("ranks", [(0, 1, 4, 15, 16), (17, 33), (64, 128), (130, 257)], ids=str)
def test_inner_products_of_every_rank_match_the_formula(
    ranks: tuple[int, ...],
    make_layer: Make,
    make_directions: Make,
    stacked: Make,
    assert_products: Check,
) -> None:
    layers, directions = [make_layer(*ranks)], make_directions(8, 0, 24, 1, 17)
    assert_products(products(layers, stacked(directions)), layers, [directions])


@pytest.mark.parametrize(("d_out", "d_in"), [(1, 41), (7, 1), (129, 13)])
def test_layers_of_every_shape_match_the_formula(
    d_out: int,
    d_in: int,
    make_layer: Make,
    make_directions: Make,
    stacked: Make,
    assert_products: Check,
) -> None:
    layers = [make_layer(3, 20, d_out=d_out, d_in=d_in)]
    directions = make_directions(1, 5, d_out=d_out, d_in=d_in)
    assert_products(products(layers, stacked(directions)), layers, [directions])


def test_more_rows_than_a_block_has_match_the_formula(
    make_layer: Make, make_directions: Make, stacked: Make, assert_products: Check
) -> None:
    # 128 rows per block at rank 16: one direction ends in a second block, others lie in more
    layers, directions = [make_layer(3, 4)], make_directions(100, 29, *[24] * 7)
    assert_products(products(layers, stacked(directions)), layers, [directions])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_sixteen_bit_operands_are_as_exact(
    dtype: torch.dtype,
    make_layer: Make,
    make_directions: Make,
    stacked: Make,
    assert_products: Check,
) -> None:
    layers, directions = [make_layer(5, 20, dtype=dtype)], make_directions(4, 24, dtype=dtype)
    assert_products(products(layers, stacked(directions)), layers, [directions])


def test_layers_may_differ_in_shape_and_in_who_takes_part(
    make_layer: Make, make_directions: Make, stacked: Make, assert_products: Check
) -> None:
    layers = [make_layer(4, 0, 7), make_layer(20, 5, 0, d_out=9, d_in=13, seed=1)]
    directions = [make_directions(3, 24), make_directions(9, 2, d_out=9, d_in=13)]
    assert_products(products(layers, stacked(*directions)), layers, directions)


def test_nothing_to_sum_launches_nothing(
    make_layer: Make, make_directions: Make, stacked: Make
) -> None:
    empty = stacked(make_directions(0, 0))
    assert products([make_layer(4, 0)], empty).values.tolist() == [[[0.0] * 2] * 2]
    assert products([make_layer(0, 0)], empty).values.tolist() == [[[0.0] * 2] * 2]


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # inf - inf
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("side", ["down", "up"])
def test_weights_that_are_not_finite_spoil_and_mark_their_adapter_alone(
    side: str, value: float, make_layer: Make, make_directions: Make, stacked: Make
) -> None:
    adapters, directions = make_layer(3, 4, 5), stacked(make_directions(2, 24))
    clean = products([adapters], directions)
    getattr(adapters[1], side)[1, 1] = value
    spoilt = products([adapters], directions)
    assert spoilt.nonfinite.tolist() == [[False, True, False]]
    assert spoilt.values[0].isnan().all(dim=1).tolist() == [False, True, False]
    assert torch.equal(spoilt.values[0, ::2], clean.values[0, ::2])


def test_a_rerun_gives_the_same_bits(
    make_layer: Make, make_directions: Make, stacked: Make
) -> None:
    layers, directions = [make_layer(4, 17)], stacked(make_directions(8, 24))
    first = products(layers, directions)
    for _ in range(2):
        assert torch.equal(first.values, products(layers, directions).values)


def test_the_order_of_adapters_changes_no_bit_of_their_results(
    make_layer: Make, make_directions: Make, stacked: Make
) -> None:
    adapters, directions = make_layer(4, 17, 0, 16, 33), stacked(make_directions(8, 3))
    order = [3, 0, 4, 2, 1]
    shuffled = [adapters[index] for index in order]
    values = products([adapters], directions).values[0]
    assert torch.equal(values[order], products([shuffled], directions).values[0])


@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    ranks=st.lists(st.integers(0, 40), min_size=1, max_size=3),
    slots=st.lists(st.sampled_from([0, 1, 8, 24]), min_size=1, max_size=3),
    sizes=st.tuples(st.integers(2, 30), st.integers(2, 30)),
    dtype=st.sampled_from(DTYPES),
)
def test_ragged_lists_match_the_reference(
    ranks: list[int],
    slots: list[int],
    sizes: tuple[int, int],
    dtype: torch.dtype,
    make_layer: Make,
    make_directions: Make,
    stacked: Make,
) -> None:
    d_out, d_in = sizes
    layers = [make_layer(*ranks, d_out=d_out, d_in=d_in, dtype=dtype)]
    known = stacked(make_directions(*slots, d_out=d_out, d_in=d_in, dtype=dtype))
    found = products(layers, known).values
    expected = inner_products(layers, known, backend="reference").values
    torch.testing.assert_close(found, expected, rtol=5e-6, atol=1e-4)


def test_the_result_says_how_it_was_computed(
    make_layer: Make, make_directions: Make, stacked: Make
) -> None:
    result = products([make_layer(2, 300)], stacked(make_directions(3)))
    assert result.backend == "triton"
    told = {
        "backend": "triton",
        "torch": torch.__version__,
        "device": "cpu",
        "triton": triton.__version__,
        "gemm": "float32 sums, no tf32",
        "tile": "2048",
        "num_warps": "4",
        "fold_block": "16",
        "enable_fp_fusion": "True",
        "variants": "product:128,product:16",
    }
    assert told.items() <= result.provenance.items()


@pytest.mark.parametrize("kernel", ["product", "fold"])
def test_an_unwritten_result_would_be_seen(
    kernel: str,
    make_layer: Make,
    make_directions: Make,
    stacked: Make,
    assert_products: Check,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Idle:
        def __getitem__(self, grid: object) -> Callable[..., None]:
            return lambda *args, **options: None

    layers, directions = [make_layer(3)], make_directions(2)
    monkeypatch.setattr(launch, f"lora_response_{kernel}_kernel", Idle())
    with pytest.raises(AssertionError):
        assert_products(products(layers, stacked(directions)), layers, [directions])
