"""The reference against the plain formulas in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from loragate_kernels import _gemm
from loragate_kernels.lora_response import (
    Direction,
    Directions,
    InnerProducts,
    LayerDirections,
    LowRank,
    ResponseEnergy,
    inner_products,
    reference,
    response_energy,
)

Check = Callable[..., None]
Make = Callable[..., Any]

RANKS = (0, 1, 4, 15, 16, 17, 33, 64, 128, 130)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def energies(layers: list[list[LowRank]], *inputs: Tensor, **options: Any) -> ResponseEnergy:
    return response_energy(layers, inputs, backend="reference", per_token=True, **options)


def products(
    layers: list[list[LowRank]], *directions: list[Direction], **options: Any
) -> InnerProducts:
    return inner_products(layers, Directions.pack(directions), backend="reference", **options)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("tokens", [1, 15, 16, 17])
def test_energies_of_every_rank_match_the_formula(
    tokens: int,
    dtype: torch.dtype,
    make_layer: Make,
    make_inputs: Make,
    assert_energies: Check,
) -> None:
    layers = [make_layer(*RANKS, dtype=dtype)]
    x = make_inputs(tokens, dtype=dtype)
    assert_energies(energies(layers, x), layers, [x])


@pytest.mark.parametrize("offset", [-1, 0, 1])
def test_edges_of_a_chunk_of_tokens_match_the_formula(
    offset: int,
    make_layer: Make,
    make_inputs: Make,
    assert_energies: Check,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reference, "TOKEN_CHUNK", 8)
    layers, x = [make_layer(4, 0, 9)], make_inputs(16 + offset)
    assert_energies(energies(layers, x), layers, [x])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_inner_products_of_every_rank_match_the_formula(
    dtype: torch.dtype, make_layer: Make, make_directions: Make, assert_products: Check
) -> None:
    layers = [make_layer(*RANKS, dtype=dtype)]
    directions = make_directions(8, 0, None, 1, 17, None, dtype=dtype)
    assert_products(products(layers, directions), layers, [directions])


def test_sixteen_bit_directions_are_widened_in_tiles(
    make_layer: Make,
    make_directions: Make,
    assert_products: Check,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_gemm, "TILE_ELEMENTS", 3 * 40)
    layers, directions = [make_layer(5, 6)], make_directions(8, 3, dtype=torch.bfloat16)
    assert_products(products(layers, directions), layers, [directions])


def test_weights_and_directions_may_be_of_different_types(
    make_layer: Make, make_directions: Make, assert_products: Check
) -> None:
    low, high = make_layer(3, dtype=torch.float16), make_layer(5, seed=1)
    mixed = LowRank(low[0].down, make_layer(3, dtype=torch.bfloat16)[0].up, 2.0)
    layers = [[*low, *high, mixed]]
    directions = make_directions(2, None, dtype=torch.bfloat16)
    assert_products(products(layers, directions), layers, [directions])


def test_long_rows_stay_within_the_tolerance(
    make_layer: Make, make_directions: Make, make_inputs: Make, assert_products: Check
) -> None:
    layers = [make_layer(16, 64, d_out=1280, d_in=2048)]
    directions = make_directions(8, 8, d_out=1280, d_in=2048)
    assert_products(products(layers, directions), layers, [directions])


def test_layers_of_different_shapes_are_summed_in_their_order(
    make_layer: Make, make_directions: Make, make_inputs: Make, assert_products: Check
) -> None:
    layers = [make_layer(4, 0, 7), make_layer(2, 5, 0, d_out=9, d_in=13, seed=1)]
    directions = [make_directions(3, None, 1), make_directions(2, 2, None, d_out=9, d_in=13)]
    whole = products(layers, *directions)
    apart = products(layers, *directions, per_layer=True)
    assert_products(whole, layers, directions)
    assert_products(apart, layers, directions)
    assert torch.equal(whole.values, apart.values[0] + apart.values[1])


RAGGED = st.lists(
    st.tuples(
        st.integers(1, 30),
        st.integers(1, 30),
        st.lists(st.integers(0, 40), min_size=3, max_size=3),
        st.lists(st.sampled_from([None, 0, 1, 2, 8, 9]), min_size=2, max_size=2),
        st.integers(0, 20),
        st.sampled_from(DTYPES),
    ),
    min_size=1,
    max_size=3,
)


@settings(deadline=None, max_examples=25)
@given(plan=RAGGED)
def test_ragged_lists_match_the_formulas(
    plan: list[Any],
    make_layer: Make,
    make_inputs: Make,
    make_directions: Make,
    assert_products: Check,
    assert_energies: Check,
) -> None:
    layers, directions, inputs = [], [], []
    for seed, (d_out, d_in, ranks, slots, tokens, dtype) in enumerate(plan):
        layers.append(make_layer(*ranks, d_out=d_out, d_in=d_in, dtype=dtype, seed=seed))
        # an inner product may cancel in full where a delta has one row, so no narrower type here
        directions.append(make_directions(*slots, d_out=d_out, d_in=d_in, seed=seed))
        inputs.append(make_inputs(tokens, d_in, dtype, seed))
    assert_energies(energies(layers, *inputs), layers, inputs)
    result = products(layers, *directions)
    assert result.values.shape == (3, 2)


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
    make_inputs: Make,
    make_directions: Make,
) -> None:
    adapters = make_layer(*ranks, d_in=d_in)
    x, directions = make_inputs(33, d_in), make_directions(8, None, 3, d_in=d_in)
    order = list(range(len(ranks)))
    randomness.shuffle(order)
    shuffled = [adapters[index] for index in order]
    first, second = energies([adapters], x), energies([shuffled], x)
    assert torch.equal(first.energy[:, order], second.energy)
    assert first.per_token is not None
    assert second.per_token is not None
    assert torch.equal(first.per_token[0][order], second.per_token[0])
    values = products([adapters], directions).values
    assert torch.equal(values[order], products([shuffled], directions).values)


def test_an_energy_does_not_depend_on_the_other_adapters(
    make_layer: Make, make_inputs: Make
) -> None:
    adapters, x = make_layer(5, 9, 0, 33), make_inputs(33)
    together = energies([adapters], x).energy[0]
    alone = torch.cat([energies([[adapter]], x).energy[0] for adapter in adapters])
    assert torch.equal(together, alone)


def test_a_rerun_gives_the_same_bits(
    make_layer: Make, make_inputs: Make, make_directions: Make
) -> None:
    layers, x, directions = [make_layer(4, 17)], make_inputs(50), make_directions(8, None)
    for _ in range(3):
        assert torch.equal(energies(layers, x).energy, energies(layers, x).energy)
        assert torch.equal(products(layers, directions).values, products(layers, directions).values)


def test_second_moments_give_the_energy_of_their_inputs(
    make_layer: Make, make_inputs: Make
) -> None:
    layers = [make_layer(*RANKS), make_layer(*RANKS, d_out=7, d_in=13, seed=1)]
    inputs = [make_inputs(100), make_inputs(5, 13)]
    moments = [x @ x.t() for x in inputs]
    exact = response_energy(layers, inputs, backend="reference")
    result = response_energy(layers, second_moments=moments, backend="reference")
    assert result.per_token is None
    assert exact.per_token is None
    torch.testing.assert_close(result.energy, exact.energy, rtol=5e-6, atol=0.0)
    assert result.energy[:, 0].tolist() == [0.0, 0.0]


def test_an_energy_is_never_negative(make_layer: Make) -> None:
    layers = [make_layer(3, 8)]
    x = torch.linalg.svd(layers[0][0].down.double()).Vh[-1].float().unsqueeze(1)
    # what adapter 0 answers to is orthogonal to x: its energy is nothing but rounding
    result = response_energy(layers, second_moments=[x @ x.t()], backend="reference")
    assert result.energy.min() >= 0
    assert energies(layers, x).energy.min() >= 0
    assert result.energy[0, 0] < 1e-6 * result.energy[0, 1]


def test_an_adapter_of_rank_zero_or_untrained_does_exactly_nothing(
    make_layer: Make, make_inputs: Make, make_directions: Make
) -> None:
    nothing, fresh = make_layer(0, 4)
    fresh = LowRank(fresh.down, torch.zeros_like(fresh.up))
    result = energies([[nothing, fresh]], make_inputs(9))
    assert result.energy.tolist() == [[0.0, 0.0]]
    assert (
        products([[nothing, fresh]], make_directions(2, None)).values.tolist() == [[0.0, 0.0]] * 2
    )


def test_without_tokens_there_is_no_energy(make_layer: Make, make_inputs: Make) -> None:
    result = energies([make_layer(4, 0)], make_inputs(0))
    assert result.energy.tolist() == [[0.0, 0.0]]
    assert result.per_token is not None
    assert result.per_token[0].shape == (2, 0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("side", ["down", "up"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_weights_that_are_not_finite_spoil_and_mark_their_adapter_alone(
    dtype: torch.dtype,
    side: str,
    value: float,
    make_layer: Make,
    make_inputs: Make,
    make_directions: Make,
) -> None:
    adapters = make_layer(3, 4, 5, dtype=dtype)
    x, directions = make_inputs(6, dtype=dtype), make_directions(2, 0, None, dtype=dtype)
    clean = energies([adapters], x), products([adapters], directions)
    getattr(adapters[1], side)[1, 1] = value
    found = energies([adapters], x), products([adapters], directions)
    for before, after in zip(clean, found, strict=True):
        assert before.nonfinite.tolist() == [[False, False, False]]
        assert after.nonfinite.tolist() == [[False, True, False]]
    assert found[0].energy[0].isnan().tolist() == [False, True, False]
    assert torch.equal(found[0].energy[0, ::2], clean[0].energy[0, ::2])
    assert found[1].values[1].isnan().all()
    assert torch.equal(found[1].values[::2], clean[1].values[::2])
    assert found[0].per_token is not None
    assert found[0].per_token[0][1].isnan().all()


def test_weights_whose_sum_overflows_are_finite_all_the_same() -> None:
    huge = LowRank(torch.full((1, 40), 3e38), torch.full((24, 1), 1e-37))
    direction = torch.zeros(24, 40)
    direction[3, 5] = 1.0
    result = products([[huge]], [direction])
    assert result.nonfinite.tolist() == [[False]]
    assert result.values.tolist() == [[pytest.approx(30.0, rel=1e-6)]]


def test_a_direction_that_is_not_finite_spoils_its_column_alone(
    make_layer: Make, make_directions: Make
) -> None:
    layers, directions = [make_layer(3, 0)], make_directions(2, None, 3, None)
    directions[0][1][0, 0] = math.nan
    directions[3][0, 0] = math.inf
    result = products(layers, directions)
    assert result.values[0].isfinite().tolist() == [False, True, True, False]
    assert result.values[1].tolist() == [0.0] * 4
    assert not result.nonfinite.any()


def test_directions_that_are_already_stacked_are_not_copied(
    make_layer: Make, make_directions: Make, assert_products: Check
) -> None:
    pairs = make_directions(3, 0, 5)
    left = torch.cat([up.t() for up, _ in pairs])
    right = torch.cat([down for _, down in pairs])
    packed = Directions((LayerDirections.low_rank(left, right, (3, 0, 5)),))
    layers = [make_layer(4, 6)]
    result = inner_products(layers, packed, backend="reference")
    assert_products(result, layers, [pairs])
    assert packed.layers[0].blocks[0].right.data_ptr() == right.data_ptr()
    assert packed.nbytes == 4 * 8 * (24 + 40)
    assert torch.equal(result.values, products(layers, pairs).values)


def test_packing_may_narrow(
    make_layer: Make, make_directions: Make, assert_products: Check
) -> None:
    wide, layers = make_directions(3, None), [make_layer(4)]
    packed = Directions.pack(iter([wide]), dtype=torch.bfloat16)
    narrow: list[Direction] = [(wide[0][0].bfloat16(), wide[0][1].bfloat16()), wide[1].bfloat16()]
    assert packed.nbytes == 2 * (3 * 64 + 24 * 40)
    assert packed.count == 2
    result = inner_products(layers, packed, backend="reference")
    assert_products(result, layers, [narrow])


def test_the_result_says_how_it_was_computed(
    make_layer: Make, make_inputs: Make, make_directions: Make
) -> None:
    for result in (
        energies([make_layer(2)], make_inputs(3)),
        products([make_layer(2)], make_directions(1)),
    ):
        assert result.backend == "reference"
        assert result.provenance == {
            "backend": "reference",
            "torch": torch.__version__,
            "device": "cpu",
            "threads": str(torch.get_num_threads()),
            "widen_tile": str(_gemm.TILE_ELEMENTS),
            "gemm": "float32 sums, no tf32",
            "token_chunk": str(reference.TOKEN_CHUNK),
        }
