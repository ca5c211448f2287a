"""The Triton kernels, interpreted on CPU tensors, against the formulas and the reference."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import triton
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from loragate_kernels.lora_response import (
    Direction,
    Directions,
    InnerProducts,
    LoraResponseConfig,
    LowRank,
    ResponseEnergy,
    inner_products,
    launch,
    response_energy,
)

Check = Callable[..., None]
Make = Callable[..., Any]

pytestmark = pytest.mark.usefixtures("poisoned_memory")

BLOCK, CHUNK = 16, 32
CONFIG = LoraResponseConfig(token_block=BLOCK, token_chunk=CHUNK, fold_block=16)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def energies(layers: list[list[LowRank]], *inputs: Tensor, **options: Any) -> ResponseEnergy:
    options = {"config": CONFIG, "per_token": True} | options
    return response_energy(layers, inputs, backend="triton", **options)


def products(
    layers: list[list[LowRank]], *directions: list[Direction], **options: Any
) -> InnerProducts:
    packed = Directions.pack(directions)
    return inner_products(layers, packed, backend="triton", config=CONFIG, **options)


def test_memory_is_poisoned() -> None:
    assert torch.empty(3).isnan().all()


@pytest.mark.parametrize("ranks", [(0, 1, 4, 15, 16), (17, 33), (64, 128), (130,)], ids=str)
def test_energies_of_every_rank_match_the_formula(
    ranks: tuple[int, ...], make_layer: Make, make_inputs: Make, assert_energies: Check
) -> None:
    layers, x = [make_layer(*ranks)], make_inputs(17)
    assert_energies(energies(layers, x), layers, [x])


@pytest.mark.parametrize("d_out", [1, 129, 200])
def test_ranks_beyond_the_widest_block_are_worked_off_in_parts(
    d_out: int, make_layer: Make, make_inputs: Make, assert_energies: Check
) -> None:
    layers, x = [make_layer(150, 257, d_out=d_out)], make_inputs(5)
    assert_energies(energies(layers, x), layers, [x])


@pytest.mark.parametrize(
    "tokens", [1, 15, BLOCK, BLOCK + 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + BLOCK]
)
def test_edges_of_blocks_and_chunks_of_tokens_match_the_formula(
    tokens: int, make_layer: Make, make_inputs: Make, assert_energies: Check
) -> None:
    layers, x = [make_layer(5, 0, 20)], make_inputs(tokens)
    result = energies(layers, x)
    assert_energies(result, layers, [x])
    assert torch.equal(result.energy, energies(layers, x, per_token=False).energy)


def test_many_blocks_are_folded_whole(
    make_layer: Make, make_inputs: Make, assert_energies: Check
) -> None:
    layers, x = [make_layer(3)], make_inputs(16 * 33 + 5)  # 34 blocks: two folds and a rest
    config = LoraResponseConfig(token_block=16, token_chunk=1024, fold_block=16)
    assert_energies(energies(layers, x, config=config), layers, [x])


def test_second_moments_match_the_reference(make_layer: Make, make_inputs: Make) -> None:
    layers = [make_layer(0, 5, 33, d_in=40), make_layer(130, 0, 1, d_out=7, d_in=13)]
    inputs = [make_inputs(100), make_inputs(5, 13)]
    moments = [x @ x.t() for x in inputs]
    result = response_energy(layers, second_moments=moments, backend="triton", config=CONFIG)
    reference = response_energy(layers, second_moments=moments, backend="reference")
    torch.testing.assert_close(result.energy, reference.energy, rtol=5e-6, atol=0.0)
    assert result.provenance["variants"] == "product:128:aligned,product:128:scalar"
    nothing = response_energy(
        [make_layer(0, 0)], second_moments=moments[:1], backend="triton", config=CONFIG
    )
    assert nothing.energy.tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("ranks", [(0, 1, 4, 15, 16), (17, 33), (64, 128), (130, 257)], ids=str)
def test_inner_products_of_every_rank_match_the_formula(
    ranks: tuple[int, ...], make_layer: Make, make_directions: Make, assert_products: Check
) -> None:
    layers, directions = [make_layer(*ranks)], make_directions(8, 0, None, 1, 17)
    assert_products(products(layers, directions), layers, [directions])


def test_more_rows_than_a_block_has_match_the_formula(
    make_layer: Make, make_directions: Make, assert_products: Check
) -> None:
    # 128 rows per block at rank 16; dense directions begin again within a block
    layers, directions = [make_layer(3, 4)], make_directions(100, 29, *[None] * 7)
    assert_products(products(layers, directions), layers, [directions])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_sixteen_bit_operands_are_as_exact(
    dtype: torch.dtype,
    make_layer: Make,
    make_inputs: Make,
    make_directions: Make,
    assert_energies: Check,
    assert_products: Check,
) -> None:
    layers, x = [make_layer(5, 20, dtype=dtype)], make_inputs(20, dtype=dtype)
    directions = make_directions(4, None, dtype=dtype)
    assert_energies(energies(layers, x), layers, [x])
    assert_products(products(layers, directions), layers, [directions])


def test_layers_may_differ_in_shape_and_in_who_takes_part(
    make_layer: Make,
    make_inputs: Make,
    make_directions: Make,
    assert_energies: Check,
    assert_products: Check,
) -> None:
    layers = [make_layer(4, 0, 7), make_layer(20, 5, 0, d_out=9, d_in=13, seed=1)]
    inputs = [make_inputs(7), make_inputs(18, 13)]
    directions = [make_directions(3, None), make_directions(None, 2, d_out=9, d_in=13)]
    assert_energies(energies(layers, *inputs), layers, inputs)
    whole = products(layers, *directions)
    apart = products(layers, *directions, per_layer=True)
    assert_products(whole, layers, directions)
    assert_products(apart, layers, directions)
    assert torch.equal(whole.values, apart.values[0] + apart.values[1])


def test_nothing_to_sum_launches_nothing(
    make_layer: Make, make_inputs: Make, make_directions: Make
) -> None:
    assert energies([make_layer(4, 0)], make_inputs(0)).energy.tolist() == [[0.0, 0.0]]
    result = energies([make_layer(0, 0)], make_inputs(3))
    assert result.energy.tolist() == [[0.0, 0.0]]
    assert result.per_token is not None
    assert result.per_token[0].tolist() == [[0.0] * 3] * 2
    assert products([make_layer(4, 0)], make_directions(0, 0)).values.tolist() == [[0.0] * 2] * 2


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # inf - inf
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("side", ["down", "up"])
def test_weights_that_are_not_finite_spoil_and_mark_their_adapter_alone(
    side: str, value: float, make_layer: Make, make_inputs: Make, make_directions: Make
) -> None:
    adapters, x, directions = make_layer(3, 4, 5), make_inputs(6), make_directions(2, None)
    clean = energies([adapters], x), products([adapters], directions)
    getattr(adapters[1], side)[1, 1] = value
    energy, product = energies([adapters], x), products([adapters], directions)
    assert energy.nonfinite.tolist() == product.nonfinite.tolist() == [[False, True, False]]
    assert energy.energy[0].isnan().tolist() == [False, True, False]
    assert torch.equal(energy.energy[0, ::2], clean[0].energy[0, ::2])
    assert product.values.isnan().all(dim=1).tolist() == [False, True, False]
    assert torch.equal(product.values[::2], clean[1].values[::2])


def test_a_rerun_gives_the_same_bits(
    make_layer: Make, make_inputs: Make, make_directions: Make
) -> None:
    layers, x, directions = [make_layer(4, 17)], make_inputs(40), make_directions(8, None)
    energy, product = energies(layers, x), products(layers, directions)
    for _ in range(2):
        assert torch.equal(energy.energy, energies(layers, x).energy)
        assert torch.equal(product.values, products(layers, directions).values)


def test_the_order_of_adapters_changes_no_bit_of_their_results(
    make_layer: Make, make_inputs: Make, make_directions: Make
) -> None:
    adapters, x, directions = make_layer(4, 17, 0, 16, 33), make_inputs(40), make_directions(8, 3)
    order = [3, 0, 4, 2, 1]
    shuffled = [adapters[index] for index in order]
    energy, product = energies([adapters], x), products([adapters], directions)
    assert torch.equal(energy.energy[:, order], energies([shuffled], x).energy)
    assert torch.equal(product.values[order], products([shuffled], directions).values)


@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    ranks=st.lists(st.integers(0, 40), min_size=1, max_size=3),
    slots=st.lists(st.sampled_from([None, 0, 1, 8]), min_size=1, max_size=3),
    sizes=st.tuples(st.integers(2, 30), st.integers(2, 30), st.integers(0, 40)),
    dtype=st.sampled_from(DTYPES),
)
def test_ragged_lists_match_the_reference(
    ranks: list[int],
    slots: list[int | None],
    sizes: tuple[int, int, int],
    dtype: torch.dtype,
    make_layer: Make,
    make_inputs: Make,
    make_directions: Make,
    assert_products: Check,
) -> None:
    d_out, d_in, tokens = sizes
    layers = [make_layer(*ranks, d_out=d_out, d_in=d_in, dtype=dtype)]
    x = make_inputs(tokens, d_in, dtype)
    reference = response_energy(layers, [x], backend="reference")
    # few terms may cancel almost in full, so the error is measured by what could not
    size = torch.tensor([a.down.double().norm() * a.up.double().norm() for a in layers[0]])
    scales = torch.tensor([a.scale for a in layers[0]])
    bound = 5e-6 * (scales * size * x.double().norm()).square()
    assert bool(((energies(layers, x).energy - reference.energy).abs() <= bound).all())
    directions = make_directions(*slots, d_out=d_out, d_in=d_in, dtype=dtype)
    found = products(layers, directions).values
    packed = Directions.pack([directions])
    expected = inner_products(layers, packed, backend="reference").values
    torch.testing.assert_close(found, expected, rtol=5e-6, atol=1e-4)


def test_the_result_says_how_it_was_computed(
    make_layer: Make, make_inputs: Make, make_directions: Make
) -> None:
    common = {
        "backend": "triton",
        "torch": torch.__version__,
        "device": "cpu",
        "triton": triton.__version__,
        "gemm": "float32 sums, no tf32",
        "token_block": "16",
        "token_chunk": "32",
        "tile": "2048",
        "num_warps": "4",
        "fold_block": "16",
        "enable_fp_fusion": "True",
    }
    energy = energies([make_layer(2, 20)], make_inputs(3))
    assert energy.backend == "triton"
    assert common.items() <= energy.provenance.items()
    assert energy.provenance["variants"] == "energy:16:scalar,energy:32:scalar"
    wide = energies([make_layer(2)], make_inputs(CHUNK))
    assert wide.provenance["variants"] == "energy:16:aligned"
    product = products([make_layer(2, 300)], make_directions(3))
    assert common.items() <= product.provenance.items()
    assert product.provenance["variants"] == "product:128:aligned,product:16:aligned"


def test_an_unwritten_result_would_be_seen(
    make_layer: Make,
    make_inputs: Make,
    make_directions: Make,
    assert_energies: Check,
    assert_products: Check,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Idle:
        def __getitem__(self, grid: object) -> Callable[..., None]:
            return lambda *args, **options: None

    layers, x, directions = [make_layer(3)], make_inputs(5), make_directions(2)
    for kernel in ("energy", "product", "fold"):
        with monkeypatch.context() as patched:
            patched.setattr(launch, f"lora_response_{kernel}_kernel", Idle())
            if kernel != "product":
                with pytest.raises(AssertionError):
                    assert_energies(energies(layers, x), layers, [x])
            if kernel != "energy":
                with pytest.raises(AssertionError):
                    assert_products(products(layers, directions), layers, [directions])
