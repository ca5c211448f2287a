"""Which tensors are taken as they lie in memory, and which are refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from loragate_kernels import pair_stats
from loragate_kernels._rows import as_row_pairs

Make = Callable[..., tuple[Tensor, Tensor]]
Check = Callable[..., None]


def channels_last(tensor: Tensor) -> Tensor:
    return tensor.to(memory_format=torch.channels_last)


VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "channels last": channels_last,
    "slice of rows": lambda tensor: torch.cat([tensor, tensor])[1 : 1 + len(tensor)],
    "every other row": lambda tensor: tensor.repeat_interleave(2, dim=0)[::2],
    "permuted inside": lambda tensor: tensor.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1),
    "misaligned": lambda tensor: torch.cat([tensor.new_zeros(1), tensor.flatten()])[1:].view_as(
        tensor
    ),
    "rows with a gap": lambda tensor: torch.nn.functional.pad(tensor.flatten(1), (0, 3))[
        :, :-3
    ].unflatten(1, tensor.shape[1:]),
    "dimensions of one": lambda tensor: tensor.flatten(1)[:, None, :, None],
    "transposed single row": lambda tensor: tensor[:1].flatten(1).t().contiguous().t(),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", VIEWS)
def test_dense_rows_are_read_as_they_lie(
    name: str, dtype: torch.dtype, make_pair: Make, assert_matches: Check
) -> None:
    base, adapted = (VIEWS[name](each) for each in make_pair(3, 4, 5, 6, dtype=dtype))
    assert_matches(pair_stats([(base, adapted)], backend="reference"), [(base, adapted)])
    [view] = as_row_pairs([(base, adapted)])
    assert view.base.untyped_storage().data_ptr() == base.untyped_storage().data_ptr()


def test_a_batch_cut_in_two_is_read_without_a_copy(make_pair: Make, assert_matches: Check) -> None:
    whole = channels_last(torch.cat(make_pair(4, 3, 5, 5)))
    pair = (whole[:4], whole[4:])
    assert_matches(pair_stats([pair], backend="reference"), [pair])


def test_alignment_is_found_per_row() -> None:
    whole = torch.zeros(4, 8, dtype=torch.bfloat16)
    odd = torch.zeros(4, 9, dtype=torch.bfloat16)
    shifted = torch.zeros(33, dtype=torch.bfloat16)[1:].view(4, 8)
    views = as_row_pairs(
        [(whole, whole), (odd, odd), (odd[:1], odd[:1]), (whole, shifted), (shifted, whole)]
    )
    assert [view.aligned for view in views] == [True, False, True, False, False]


@pytest.mark.parametrize(
    ("base", "adapted", "message"),
    [
        (torch.zeros(2, 3), torch.zeros(3, 2), r"pair 1: shapes differ.*\(2, 3\).*\(3, 2\)"),
        (torch.zeros(2, 3), torch.zeros(2, 3).half(), "pair 1: dtypes differ"),
        (torch.zeros(2).double(), torch.zeros(2).double(), "float64 is not supported"),
        (torch.zeros(2).long(), torch.zeros(2).long(), "int64 is not supported"),
        (torch.zeros(2) + 0j, torch.zeros(2) + 0j, "complex64 is not supported"),
        (torch.tensor(1.0), torch.tensor(1.0), "0-d tensor has no rows"),
        (torch.zeros(2, 3), torch.zeros(2, 3, device="meta"), "devices differ"),
        (torch.zeros(2, 6)[:, ::2], torch.zeros(2, 6)[:, ::2], "not dense"),
        (torch.zeros(2, 1).expand(2, 3), torch.zeros(2, 1).expand(2, 3), "overlap"),
        (torch.zeros(3).expand(2, 3), torch.zeros(3).expand(2, 3), "rows of base overlap"),
        (torch.zeros(3, 2).t(), torch.zeros(3, 2).t(), "not dense"),
        (
            torch.zeros(1, 2, 3),
            torch.zeros(1, 3, 2).transpose(1, 2),
            "strides differ within a row",
        ),
        (
            torch.zeros(2, 4).as_strided((2, 3), (2, 1)),
            torch.zeros(2, 4).as_strided((2, 3), (2, 1)),
            "rows of base overlap",
        ),
        (
            torch.zeros(2, 3),
            torch.zeros(3).expand(2, 3),
            "rows of adapted overlap",
        ),
        (
            torch.zeros(9).as_strided((1, 2, 3), (9, 2, 1)),
            torch.zeros(9).as_strided((1, 2, 3), (9, 2, 1)),
            "elements of a row of base overlap",
        ),
        (torch.eye(2).to_sparse(), torch.eye(2).to_sparse(), "only strided"),
    ],
)
def test_a_pair_that_cannot_be_read_is_refused_by_number_and_fault(
    base: Tensor, adapted: Tensor, message: str
) -> None:
    good = torch.zeros(1, 1)
    with pytest.raises(ValueError, match=message):
        pair_stats([(good, good), (base, adapted)], backend="reference")


def test_an_empty_list_is_refused() -> None:
    with pytest.raises(ValueError, match="pairs is empty"):
        pair_stats([], backend="reference")


def test_pairs_on_two_devices_are_refused() -> None:
    here, there = torch.zeros(1, 1), torch.zeros(1, 1, device="meta")
    with pytest.raises(ValueError, match="pair 1 is on device 'meta', pair 0 on 'cpu'"):
        pair_stats([(here, here), (there, there)], backend="reference")


@pytest.mark.parametrize("shape", [(0,), (0, 5), (3, 0), (0, 0), (2, 0, 4)])
def test_nothing_sums_to_nothing(shape: Any, assert_matches: Check) -> None:
    pair = (torch.zeros(shape), torch.zeros(shape))
    stats = pair_stats([pair], backend="reference")
    assert_matches(stats, [pair])
    assert stats.row_offsets == (0, shape[0])
    assert stats.sum_sq_diff.tolist() == [0.0] * shape[0]


def test_a_tensor_of_one_dimension_has_rows_of_one_element(
    make_pair: Make, assert_matches: Check
) -> None:
    pair = make_pair(5)
    assert_matches(pair_stats([pair], backend="reference"), [pair])
