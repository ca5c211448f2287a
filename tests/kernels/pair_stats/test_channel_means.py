"""Means of the difference by channel: the reference against the plain formula."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from loragate_kernels import BackendUnavailableError, backend, channel_mean_diff

Make = Callable[..., tuple[Tensor, Tensor]]


def run(base: Tensor, adapted: Tensor, channel_dim: int = 1) -> Tensor:
    [mean] = channel_mean_diff([(base, adapted)], channel_dim=channel_dim, backend="reference")
    return mean


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_all_layouts_of_pictures_give_the_mean_over_positions(
    dtype: torch.dtype, make_pair: Make
) -> None:
    base, adapted = make_pair(3, 5, 6, 7, dtype=dtype)
    expected = (adapted.double() - base.double()).mean((2, 3))
    last = [each.to(memory_format=torch.channels_last) for each in (base, adapted)]
    torch.testing.assert_close(run(base, adapted), expected)
    torch.testing.assert_close(run(last[0], last[1]), expected)


def test_tokens_give_the_mean_over_tokens(make_pair: Make) -> None:
    base, adapted = make_pair(2, 9, 4)
    expected = (adapted.double() - base.double()).mean(1)
    torch.testing.assert_close(run(base, adapted, -1), expected)
    torch.testing.assert_close(run(base, adapted, 2), expected)


def test_equal_tensors_have_means_of_exactly_zero(make_pair: Make) -> None:
    base, _ = make_pair(2, 3, 10)
    assert run(base, base.clone()).tolist() == [[0.0] * 3] * 2


@pytest.mark.parametrize(
    ("shape", "expected"), [((0, 3, 4), (0, 3)), ((2, 3, 0), (2, 3)), ((2, 0, 4), (2, 0))]
)
def test_the_mean_of_nothing_is_nan(shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    mean = run(torch.zeros(shape), torch.zeros(shape))
    assert mean.shape == expected
    assert mean.isnan().all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_channel_that_is_not_finite_is_nan_alone(value: float, make_pair: Make) -> None:
    base, adapted = make_pair(2, 3, 4)
    adapted[1, 0, 2] = value
    assert run(base, adapted).isnan().tolist() == [[False] * 3, [True, False, False]]


@pytest.mark.parametrize("channel_dim", [0, -3, 3, -4])
def test_a_dimension_that_is_not_inside_the_rows_is_refused(channel_dim: int) -> None:
    with pytest.raises(ValueError, match=f"pair 0: channel_dim {channel_dim} is not a dimension"):
        run(torch.zeros(2, 3, 4), torch.zeros(2, 3, 4), channel_dim)


def test_channels_between_other_dimensions_are_refused() -> None:
    between = torch.zeros(2, 3, 4, 5)
    with pytest.raises(ValueError, match="pair 0: the channels lie between other dimensions"):
        run(between, between, 2)


def test_malformed_pairs_are_refused_as_everywhere() -> None:
    with pytest.raises(ValueError, match="pair 0: shapes differ"):
        run(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="pairs is empty"):
        channel_mean_diff([], backend="reference")


def test_a_backend_that_is_missing_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "is_interpreted", lambda: False)
    with pytest.raises(BackendUnavailableError, match="interpreter"):
        channel_mean_diff([(torch.zeros(1, 2), torch.zeros(1, 2))], backend="triton")
