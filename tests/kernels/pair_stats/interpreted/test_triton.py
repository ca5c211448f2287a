"""The Triton kernels, interpreted on CPU tensors, against the formula and the reference."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import triton
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from loragate_kernels import PairStats, PairStatsConfig, pair_stats
from loragate_kernels.pair_stats import launch

Pair = tuple[Tensor, Tensor]
Make = Callable[..., Pair]
Check = Callable[..., None]

pytestmark = pytest.mark.usefixtures("poisoned_memory")

BLOCK, CHUNK = 64, 128
CONFIG = PairStatsConfig(block=BLOCK, chunk=CHUNK, fold_block=16)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SUMS = ("sum_sq_diff", "sum_sq_base", "sum_sq_adapted", "sum_product", "max_abs_diff")


def run(*pairs: Pair, config: PairStatsConfig = CONFIG) -> PairStats:
    return pair_stats(pairs, backend="triton", config=config)


def same_bits(first: PairStats, second: PairStats) -> bool:
    return all(
        torch.equal(getattr(first, name).view(torch.int64), getattr(second, name).view(torch.int64))
        for name in SUMS
    ) and torch.equal(first.nonfinite_count, second.nonfinite_count)


def close_to_reference(stats: PairStats, pairs: list[Pair]) -> None:
    """Sums of squares within 5e-6, products within 5e-6 of the norms, the maximum equal."""
    reference = pair_stats(pairs, backend="reference")
    for name in SUMS[:3]:
        torch.testing.assert_close(
            getattr(stats, name), getattr(reference, name), rtol=5e-6, atol=0
        )
    norms = (reference.sum_sq_base * reference.sum_sq_adapted).sqrt()
    assert bool(((stats.sum_product - reference.sum_product).abs() <= 5e-6 * norms).all())
    assert torch.equal(stats.max_abs_diff, reference.max_abs_diff)
    assert torch.equal(stats.nonfinite_count, reference.nonfinite_count)


def test_memory_is_poisoned() -> None:
    assert torch.empty(3).isnan().all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_size_matches_the_formula(
    dtype: torch.dtype, make_pair: Make, assert_matches: Check
) -> None:
    edges = (0, 1, 15, 16, 17, BLOCK - 1, BLOCK, BLOCK + 1, CHUNK - 1, CHUNK, CHUNK + 1)
    pairs = [make_pair(1, numel, dtype=dtype, seed=numel) for numel in edges]
    stats = run(*pairs)
    assert_matches(stats, pairs)
    close_to_reference(stats, pairs)


def test_rows_and_types_may_be_mixed_in_one_call(make_pair: Make, assert_matches: Check) -> None:
    pairs = [
        make_pair(2, 70),
        make_pair(1, 33, dtype=torch.bfloat16),
        make_pair(0, 5),
        make_pair(3, 8, dtype=torch.float16),
        make_pair(2, 3, 5),
        make_pair(2, 0),
    ]
    stats = run(*pairs)
    assert_matches(stats, pairs)
    assert stats.row_offsets == (0, 2, 3, 3, 6, 8, 10)


def test_a_row_of_many_chunks_is_folded_whole(make_pair: Make, assert_matches: Check) -> None:
    small = PairStatsConfig(block=16, chunk=16, fold_block=16)
    pair = make_pair(1, 16 * 33 + 5)  # 34 chunks: two folds of 16 and a rest
    assert_matches(run(pair, config=small), [pair])


def test_views_are_read_as_they_lie(make_pair: Make, assert_matches: Check) -> None:
    base, adapted = make_pair(2, 3, 4, 5)
    whole = torch.cat([base, adapted]).to(memory_format=torch.channels_last)
    gaps = torch.nn.functional.pad(torch.cat(make_pair(2, 21)), (0, 4))[:, :21]
    pairs = [(whole[:2], whole[2:]), (gaps[:2], gaps[2:])]
    assert_matches(run(*pairs), pairs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_misaligned_tensors_are_read_by_the_scalar_variant(
    dtype: torch.dtype, make_pair: Make, assert_matches: Check
) -> None:
    base, adapted = make_pair(1, 161, dtype=dtype)
    aligned, misaligned = (base[:, :160], adapted[:, :160]), (base[:, 1:], adapted[:, 1:])
    stats = run(aligned, misaligned)
    assert_matches(stats, [aligned, misaligned])
    name = str(dtype).removeprefix("torch.")
    assert stats.provenance["variants"] == f"{name}:aligned,{name}:scalar"


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # inf - inf
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_not_finite_are_counted_and_poison_their_row_alone(
    value: float, make_pair: Make, assert_matches: Check
) -> None:
    pairs = []
    for dtype in DTYPES:
        base, adapted = make_pair(2, 80, dtype=dtype)
        base[0, 3] = value  # in the main loop
        adapted[0, 79] = value  # in the tail
        pairs.append((base, adapted))
    stats = run(*pairs)
    assert_matches(stats, pairs)
    assert stats.nonfinite_count.tolist() == [2, 0] * 3


def test_equal_tensors_differ_by_exactly_nothing(make_pair: Make) -> None:
    pairs = [(base, base.clone()) for base, _ in (make_pair(2, 90, dtype=d) for d in DTYPES)]
    stats = run(*pairs)
    assert stats.sum_sq_diff.tolist() == stats.max_abs_diff.tolist() == [0.0] * 6
    assert torch.equal(stats.sum_sq_base, stats.sum_sq_adapted)


def test_a_tiny_difference_of_large_numbers_is_not_lost(assert_matches: Check) -> None:
    base = torch.full((1, 100), 1000.0)
    adapted = base.clone()
    adapted[0, 50] = torch.nextafter(torch.tensor(1000.0), torch.tensor(2000.0))
    assert_matches(run((base, adapted)), [(base, adapted)])


def test_a_rerun_gives_the_same_bits(make_pair: Make) -> None:
    pairs = [make_pair(2, 200), make_pair(1, 50, dtype=torch.bfloat16)]
    first = run(*pairs)
    for _ in range(3):
        assert same_bits(first, run(*pairs))


def test_neighbours_in_the_call_change_no_bit_of_a_row(make_pair: Make) -> None:
    pairs = [make_pair(1, numel, seed=numel) for numel in (130, 5, 64)]
    alone = [run(pair) for pair in pairs]
    for order in ([0, 1, 2], [2, 0, 1]):
        together = run(*(pairs[index] for index in order))
        for place, index in enumerate(order):
            for name in SUMS:
                found = getattr(together, name)[together.rows_of(place)]
                assert torch.equal(found, getattr(alone[index], name))


def test_a_batch_with_no_element_at_all_launches_nothing(make_pair: Make) -> None:
    stats = run(make_pair(0, 4), make_pair(0))
    assert stats.row_offsets == (0, 0, 0)
    assert stats.sum_sq_diff.shape == (0,)
    assert run(make_pair(2, 0)).sum_sq_diff.tolist() == [0.0, 0.0]


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    plan=st.lists(
        st.tuples(
            st.integers(0, 2), st.integers(0, 150), st.sampled_from(DTYPES), st.integers(0, 99)
        ),
        min_size=1,
        max_size=3,
    )
)
def test_ragged_lists_match_the_formula(
    plan: list[tuple[int, int, torch.dtype, int]], make_pair: Make, assert_matches: Check
) -> None:
    pairs = [make_pair(rows, numel, dtype=dtype, seed=seed) for rows, numel, dtype, seed in plan]
    stats = run(*pairs)
    assert_matches(stats, pairs)
    close_to_reference(stats, pairs)


def test_the_result_says_how_it_was_computed(make_pair: Make) -> None:
    stats = run(make_pair(1, 20))
    assert stats.backend == "triton"
    assert stats.provenance == {
        "backend": "triton",
        "torch": torch.__version__,
        "device": "cpu",
        "triton": triton.__version__,
        "config": "given",
        "variants": "float32:aligned",
        "block": "64",
        "chunk": "128",
        "num_warps": "8",
        "fold_block": "16",
        "enable_fp_fusion": "True",
    }


def test_an_unwritten_result_would_be_seen(
    make_pair: Make, assert_matches: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Idle:
        def __getitem__(self, grid: object) -> Callable[..., None]:
            return lambda *args, **options: None

    pair = make_pair(1, 20)
    for kernel in ("pair_stats_partial_kernel", "pair_stats_fold_kernel"):
        with monkeypatch.context() as patched:
            patched.setattr(launch, kernel, Idle())
            with pytest.raises(AssertionError):
                assert_matches(run(pair), [pair])
