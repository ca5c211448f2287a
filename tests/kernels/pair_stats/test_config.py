"""The committed table of launch configurations, and what a result says of its choice."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from loragate_kernels import PairStatsConfig
from loragate_kernels.pair_stats.config import (
    CONFIG_DTYPES,
    DEFAULT_ENTRY,
    TABLE,
    ConfigChoice,
    architecture_of,
    choose_config,
)

ARCHITECTURES = sorted({architecture for architecture, _ in TABLE})


def test_every_architecture_has_an_entry_for_every_type() -> None:
    assert ARCHITECTURES == ["default", "interpreter", "sm_100", "sm_80", "sm_90"]
    assert set(TABLE) == {(name, dtype) for name in ARCHITECTURES for dtype in CONFIG_DTYPES}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_element_meets_the_same_lane_whatever_its_type(architecture: str) -> None:
    configs = [TABLE[architecture, dtype] for dtype in CONFIG_DTYPES]
    assert len({(config.block, config.chunk) for config in configs}) == 1


def test_a_known_architecture_uses_its_own_entries() -> None:
    choice = choose_config("sm_90")
    assert choice.entry == "sm_90"
    assert choice.by_dtype == {dtype: TABLE["sm_90", dtype] for dtype in CONFIG_DTYPES}


@pytest.mark.parametrize("architecture", ["sm_75", "sm_120", "gfx942"])
def test_an_unknown_architecture_gets_the_default_and_is_told_so(architecture: str) -> None:
    choice = choose_config(architecture)
    assert choice.described()["config"] == f"default ({architecture})"
    assert choice.by_dtype[torch.float16] == TABLE[DEFAULT_ENTRY, torch.float16]


def test_a_given_configuration_serves_all_types() -> None:
    given = PairStatsConfig(block=64, chunk=128)
    choice = choose_config("sm_90", given)
    assert choice.entry == "given"
    assert set(choice.by_dtype.values()) == {given}
    assert choice.fold == given


def test_values_that_differ_by_type_are_all_recorded() -> None:
    base = PairStatsConfig()
    other = dataclasses.replace(base, num_warps=4)
    mixed = ConfigChoice("x", {torch.float32: base, torch.bfloat16: other, torch.float16: other})
    assert mixed.described() == {
        "config": "x",
        "block": "2048",
        "chunk": "32768",
        "num_warps": "float32:8,bfloat16:4,float16:4",
        "enable_fp_fusion": "True",
        "fold_block": "32",
    }


def test_the_architecture_is_that_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (10, 3))
    assert architecture_of(torch.device("cuda", 0)) == "sm_103"
    assert architecture_of(torch.device("cpu")) == "interpreter"
