"""The number of rows for which equal rows come out equal."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from loragate_server.audit.batching import BlockRows, exact_batch_rows
from loragate_server.models import BaseModel

Make = Callable[..., Any]


@pytest.fixture
def tried(base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Batch sizes of the forward passes; the model is exact, whatever the machine."""
    sizes: list[int] = []

    def exact(noisy: Tensor, times: Tensor, conditioning: Any) -> Tensor:
        sizes.append(len(noisy))
        return noisy * 2

    monkeypatch.setattr(base, "denoise", exact)
    return sizes


def noisy_but_at(base: BaseModel, monkeypatch: pytest.MonkeyPatch, rows: int | None) -> list[int]:
    """Makes the model depend on a row's place, except in batches of `rows` and as many again."""
    sizes: list[int] = []

    def placed(noisy: Tensor, times: Tensor, conditioning: Any) -> Tensor:
        sizes.append(len(noisy) // 2)
        if sizes[-1] == rows:
            return noisy
        return noisy + 1e-7 * torch.arange(len(noisy)).reshape(-1, 1, 1, 1)

    monkeypatch.setattr(base, "denoise", placed)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    return sizes


def test_the_wanted_size_is_kept_where_it_is_exact(
    base: BaseModel, make_probes: Make, tried: list[int]
) -> None:
    assert exact_batch_rows(base, make_probes(base), 10) == BlockRows(10, exact=True)
    assert tried == [20]


def test_there_are_never_more_rows_than_probes(
    base: BaseModel, make_probes: Make, tried: list[int]
) -> None:
    assert exact_batch_rows(base, make_probes(base), 1000).rows == 44
    assert tried == [88]


def test_multiples_of_the_threads_are_tried_until_one_is_exact(
    base: BaseModel, make_probes: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = noisy_but_at(base, monkeypatch, 18)
    assert exact_batch_rows(base, make_probes(base), 10) == BlockRows(18, exact=True)
    assert sizes == [10, 12, 15, 18]


def test_a_machine_without_an_exact_size_is_used_with_a_warning(
    base: BaseModel,
    make_probes: Make,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    sizes = noisy_but_at(base, monkeypatch, None)
    with caplog.at_level(logging.WARNING):
        assert exact_batch_rows(base, make_probes(base), 12) == BlockRows(12, exact=False)
    assert sizes == [12, 15, 18, 21, 24, 27]
    [record] = caplog.records
    assert "tiny-sd gives equal rows unequal results" in record.getMessage()


@pytest.mark.parametrize("threads", [1, 3])
def test_the_size_found_is_exact_on_this_machine(
    threads: int, base: BaseModel, make_probes: Make, caplog: pytest.LogCaptureFixture
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        rows = exact_batch_rows(base, make_probes(base), 8).rows
        told = base.encode_prompts(["a picture"]).rows(torch.zeros(2 * rows, dtype=torch.long))
        batch = torch.randn(rows, 4, 8, 8).repeat(2, 1, 1, 1)
        with torch.inference_mode():
            first, second = base.denoise(batch, torch.full((2 * rows,), 0.3), told).chunk(2)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(first, second)
    assert caplog.records == []
