"""Means of the difference by channel, interpreted, against the reference."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from loragate_kernels import channel_mean_diff
from loragate_kernels.pair_stats import channel_means

Pair = tuple[Tensor, Tensor]
Make = Callable[..., Pair]

pytestmark = pytest.mark.usefixtures("poisoned_memory")


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks and blocks that small operands fill."""
    monkeypatch.setattr(channel_means, "CHUNK", 32)
    monkeypatch.setattr(channel_means, "BLOCK_POSITIONS", 16)
    monkeypatch.setattr(channel_means, "BLOCK_CHANNELS", 4)


def assert_close(pairs: list[Pair], channel_dim: int = 1) -> list[Tensor]:
    found = channel_mean_diff(pairs, channel_dim=channel_dim, backend="triton")
    expected = channel_mean_diff(pairs, channel_dim=channel_dim, backend="reference")
    for one, other, (base, adapted) in zip(found, expected, pairs, strict=True):
        assert one.dtype == torch.float64
        assert torch.equal(one.isnan(), other.isnan())
        scale = (adapted.float() - base.float()).abs().nan_to_num(0.0, 0.0, 0.0)
        limit = 5e-6 * (float(scale.max()) if scale.numel() else 0.0)
        assert bool(((one - other).nan_to_num().abs() <= limit).all())
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_channels_that_come_first_are_averaged(dtype: torch.dtype, make_pair: Make) -> None:
    assert_close([make_pair(2, 5, 7, 9, dtype=dtype), make_pair(1, 3, 4, 4, dtype=dtype, seed=1)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_channels_that_come_last_are_averaged(dtype: torch.dtype, make_pair: Make) -> None:
    assert_close([make_pair(2, 37, 6, dtype=dtype)], channel_dim=-1)
    base, adapted = (
        each.to(memory_format=torch.channels_last) for each in make_pair(2, 5, 6, 7, dtype=dtype)
    )
    assert_close([(base, adapted)])


@pytest.mark.parametrize("shape", [(2, 1, 40), (2, 9, 1), (3, 5), (0, 3, 4), (2, 3, 0), (1, 4, 32)])
def test_edges_of_the_shapes_are_averaged(shape: tuple[int, ...], make_pair: Make) -> None:
    [mean] = assert_close([make_pair(*shape)])
    assert mean.shape == shape[:2]


def test_rows_with_gaps_are_averaged(make_pair: Make) -> None:
    base, adapted = (each[:, :3] for each in make_pair(2, 4, 20))
    assert_close([(base, adapted)])


def test_a_rerun_and_neighbours_change_no_bit(make_pair: Make) -> None:
    pairs = [make_pair(2, 5, 70), make_pair(1, 3, 5, seed=1)]
    together = channel_mean_diff(pairs, backend="triton")
    for one, pair in zip(together, pairs, strict=True):
        [alone] = channel_mean_diff([pair], backend="triton")
        assert torch.equal(one.view(torch.int64), alone.view(torch.int64))


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # inf - inf
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_channel_that_is_not_finite_is_nan_alone(value: float, make_pair: Make) -> None:
    base, adapted = make_pair(2, 3, 50)
    base[1, 2, 40] = adapted[0, 0, 1] = value
    [mean] = assert_close([(base, adapted)])
    assert mean.isnan().tolist() == [[True, False, False], [False, False, True]]
