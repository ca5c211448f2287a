"""Runs the folder `interpreted` in a process of its own, whose Triton interprets kernels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def test_the_triton_kernels_agree_with_the_formula_in_the_interpreter(
    run_interpreted: Callable[[Path, int], None],
) -> None:
    run_interpreted(Path(__file__).parent / "interpreted", 40)
