"""Tensors of large libraries are joined once, mapped from a file, and never believed unchecked."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from loragate_server.concepts.joined import KEPT, SUFFIX, JoinedFiles

STEM = "gradients-0123456789abcdef"


def tensors(seed: int = 0) -> dict[str, Tensor]:
    made = torch.Generator().manual_seed(seed)
    return {
        "left.a": torch.randn(64, 32, generator=made).half(),
        "norm.a": torch.randn(16, generator=made),
    }


def counting(made: dict[str, Tensor], calls: list[int]) -> Callable[[], dict[str, Tensor]]:
    def make() -> dict[str, Tensor]:
        calls.append(1)
        return made

    return make


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def mapped(path: Path) -> bool:
    """Whether this process has the file in its memory."""
    return str(path) in Path("/proc/self/maps").read_text()


def test_a_small_library_is_joined_in_memory_and_leaves_no_file(tmp_path: Path) -> None:
    found = JoinedFiles(tmp_path, STEM).tensors(["a", "b"], tensors)
    assert same(found, tensors())
    assert list(tmp_path.iterdir()) == []


def test_a_large_one_is_mapped_from_a_file_that_is_made_once(tmp_path: Path) -> None:
    calls: list[int] = []
    files = JoinedFiles(tmp_path, STEM, large=1)
    first = files.tensors(["a", "b"], counting(tensors(), calls))
    again = files.tensors(["a", "b"], counting(tensors(), calls))
    [path] = tmp_path.glob(f"*{SUFFIX}")
    assert mapped(path)
    assert same(first, tensors())
    assert same(again, tensors())
    assert len(calls) == 1


def test_other_concepts_or_another_order_have_a_file_of_their_own(tmp_path: Path) -> None:
    files = JoinedFiles(tmp_path, STEM, large=1)
    files.tensors(["a", "b"], tensors)
    assert same(files.tensors(["b", "a"], lambda: tensors(1)), tensors(1))


def test_a_damaged_file_is_made_anew(tmp_path: Path) -> None:
    files = JoinedFiles(tmp_path, STEM, large=1)
    files.tensors(["a"], tensors)
    [path] = tmp_path.glob(f"*{SUFFIX}")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    calls: list[int] = []
    assert same(files.tensors(["a"], counting(tensors(), calls)), tensors())
    assert same(files.tensors(["a"], counting(tensors(), calls)), tensors())
    assert len(calls) == 1


def test_only_the_newest_files_stay(tmp_path: Path) -> None:
    files = JoinedFiles(tmp_path, STEM, large=1)
    for seed in range(KEPT + 2):
        files.tensors([str(seed)], lambda seed=seed: tensors(seed))  # type: ignore[misc]
        for path in tmp_path.glob(f"*{SUFFIX}"):
            os.utime(path, (seed, path.stat().st_mtime - 10))
    assert len(list(tmp_path.glob(f"*{SUFFIX}"))) == KEPT


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_where_nothing_can_be_written_the_tensors_stay_in_memory(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert same(JoinedFiles(tmp_path, STEM, large=1).tensors(["a"], tensors), tensors())
