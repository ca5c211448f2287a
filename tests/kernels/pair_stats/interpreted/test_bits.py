"""What must not change a bit, and values at the edges of the number formats."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from loragate_kernels import PairStats, PairStatsConfig, pair_stats
from loragate_kernels._pointer_table import PointerTable, build_pointer_table
from loragate_kernels._rows import as_row_pairs
from loragate_kernels.pair_stats.config import CONFIG_DTYPES
from loragate_kernels.pair_stats.kernel import pair_stats_fold_kernel, pair_stats_partial_kernel
from loragate_kernels.pair_stats.launch import fold_options, partial_options

Pair = tuple[Tensor, Tensor]
Make = Callable[..., Pair]
Check = Callable[..., None]

pytestmark = pytest.mark.usefixtures("poisoned_memory")

CONFIG = PairStatsConfig(block=32, chunk=64, fold_block=16)


def run(*pairs: Pair) -> PairStats:
    return pair_stats(pairs, backend="triton", config=CONFIG)


def table_of(pairs: list[Pair]) -> PointerTable:
    return build_pointer_table(as_row_pairs(pairs), dict.fromkeys(CONFIG_DTYPES, CONFIG.chunk))


def fill(table: PointerTable, partial: Tensor, at_once: int) -> None:
    """Stage one in launches of at most `at_once` programs."""
    for launch in table.launches:
        options = partial_options(launch.dtype, launch.aligned, CONFIG)
        for first in range(0, launch.chunk_count, at_once):
            grid = (min(at_once, launch.chunk_count - first),)
            pair_stats_partial_kernel[grid](
                table.chunks, partial, launch.first_chunk + first, partial.shape[1], **options
            )


def bits(values: Tensor) -> Tensor:
    return values.view(torch.int32 if values.dtype is torch.float32 else torch.int64)


@pytest.fixture
def pairs(make_pair: Make) -> list[Pair]:
    """Seven chunks, of two types and two alignments."""
    odd = make_pair(1, 71, seed=2)
    return [
        make_pair(2, 130, seed=1, dtype=torch.bfloat16),
        (odd[0][:, 1:], odd[1][:, 1:]),
        make_pair(1, 9, seed=3),
    ]


@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_neither_the_grid_nor_the_split_into_launches_changes_a_bit(
    at_once: int, pairs: list[Pair]
) -> None:
    table = table_of(pairs)
    whole, split = (torch.empty(6, table.chunks.shape[1]) for _ in range(2))
    fill(table, whole, 1000)
    fill(table, split, at_once)
    assert not whole.isnan().any()
    assert torch.equal(bits(whole), bits(split))


def test_a_buffer_that_was_used_before_gives_the_bits_of_a_fresh_one(pairs: list[Pair]) -> None:
    table = table_of(pairs)
    fresh, used = (torch.empty(6, table.chunks.shape[1]) for _ in range(2))
    sums = [torch.empty(6, table.segments.shape[1], dtype=torch.float64) for _ in range(2)]
    others = [(adapted * 9, base) for base, adapted in pairs]
    fill(table_of(others), used, 1000)
    for partial, result in zip((fresh, used), sums, strict=True):
        fill(table, partial, 1000)
        pair_stats_fold_kernel[(result.shape[1],)](
            table.segments,
            partial,
            result,
            partial.shape[1],
            result.shape[1],
            **fold_options(CONFIG),
        )
    assert torch.equal(bits(fresh), bits(used))
    assert torch.equal(bits(sums[0]), bits(sums[1]))


@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    sizes=st.lists(st.integers(0, 150), min_size=2, max_size=5),
    order=st.randoms(use_true_random=False),
)
def test_permuting_the_list_permutes_the_rows_bit_for_bit(
    sizes: list[int], order: object, make_pair: Make
) -> None:
    pairs = [
        make_pair(1, size, seed=number, dtype=CONFIG_DTYPES[number % 3])
        for number, size in enumerate(sizes)
    ]
    places = list(range(len(pairs)))
    order.shuffle(places)  # type: ignore[attr-defined]
    straight, shuffled = run(*pairs), run(*(pairs[place] for place in places))
    for name in ("sum_sq_diff", "sum_sq_base", "sum_sq_adapted", "sum_product", "max_abs_diff"):
        expected = bits(getattr(straight, name))[places]
        assert torch.equal(expected, bits(getattr(shuffled, name)))


def test_swapping_the_two_swaps_their_sums_and_nothing_else(make_pair: Make) -> None:
    base, adapted = make_pair(2, 100)
    one, other = run((base, adapted)), run((adapted, base))
    for name in ("sum_sq_diff", "sum_product", "max_abs_diff"):
        assert torch.equal(bits(getattr(one, name)), bits(getattr(other, name)))
    assert torch.equal(one.sum_sq_base, other.sum_sq_adapted)
    assert torch.equal(one.sum_sq_adapted, other.sum_sq_base)


@pytest.mark.parametrize("dtype", CONFIG_DTYPES, ids=str)
def test_the_opposite_differs_by_twice_itself(
    dtype: torch.dtype, make_pair: Make, assert_matches: Check
) -> None:
    base, _ = make_pair(1, 90, dtype=dtype)
    stats = run((base, -base))
    assert_matches(stats, [(base, -base)])
    assert torch.equal(stats.sum_product, -stats.sum_sq_base)
    assert float(stats.max_abs_diff) == 2 * float(base.abs().max())


@pytest.mark.parametrize("dtype", CONFIG_DTYPES, ids=str)
def test_zeros_of_both_signs_are_equal(dtype: torch.dtype) -> None:
    zero = torch.zeros(1, 70, dtype=dtype)
    stats = run((zero, -zero))
    for name in ("sum_sq_diff", "sum_sq_base", "sum_sq_adapted", "sum_product", "max_abs_diff"):
        assert getattr(stats, name).tolist() == [0.0]
    assert stats.nonfinite_count.tolist() == [0]


def test_float16_at_its_limit_is_summed_as_it_is(assert_matches: Check) -> None:
    base = torch.full((1, 70), 6e4, dtype=torch.float16)
    pair = (base, -base)
    stats = run(pair)
    assert_matches(stats, [pair])
    assert float(stats.max_abs_diff) == 2 * float(base[0, 0])


# bfloat16 is missing: the interpreter itself turns its denormals into zeros when it casts them
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_denormal_elements_are_not_lost(dtype: torch.dtype, assert_matches: Check) -> None:
    # squares of float32's denormals leave float32, as the launch says; the maximum does not
    base = torch.full((1, 70), torch.finfo(dtype).smallest_normal / 4, dtype=dtype)
    adapted = base / 2
    stats = run((base, adapted))
    assert float(stats.max_abs_diff) == float(base[0, 0]) - float(adapted[0, 0]) > 0
    assert stats.nonfinite_count.tolist() == [0]
    if dtype is torch.float16:
        assert_matches(stats, [(base, adapted)])


def test_a_small_difference_of_large_sums_is_exact_to_the_tolerance(
    make_pair: Make, assert_matches: Check
) -> None:
    base, noise = make_pair(1, 200, scale=1000.0)
    adapted = base + noise.sign() * 2**-13
    assert_matches(run((base, adapted)), [(base, adapted)])
