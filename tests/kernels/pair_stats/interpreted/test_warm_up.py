"""Where kernels are interpreted there is nothing to compile, and nothing that could be counted."""

from __future__ import annotations

import pytest
import torch

from loragate_kernels import CompileMonitor, pair_stats, warm_up

pytestmark = pytest.mark.usefixtures("poisoned_memory")


def test_warm_up_compiles_nothing_and_says_why() -> None:
    report = warm_up("cpu")
    assert report.interpreted
    assert report.compiled == ()


def test_the_monitor_says_that_it_does_not_know_instead_of_zero() -> None:
    with CompileMonitor() as monitor:
        pair_stats([(torch.ones(1, 4), torch.zeros(1, 4))], backend="triton")
    assert monitor.count is None
    assert monitor.compiled == ()


def test_without_a_configuration_the_interpreters_own_entry_is_used() -> None:
    stats = pair_stats([(torch.ones(1, 4), torch.zeros(1, 4))], backend="triton")
    assert stats.provenance["config"] == "interpreter"
    assert stats.provenance["block"] == "2048"
    assert stats.sum_sq_diff.tolist() == [4.0]
