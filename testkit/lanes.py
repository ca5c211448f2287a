"""Which cases of a test run daily, and which in the long lane alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def daily(*cases: Any, of: Iterable[Any]) -> list[Any]:
    """Parameters for every case; `make test` runs these ones, `make test-all` the others too."""
    every = list(of)
    if unknown := [case for case in cases if case not in every]:
        raise ValueError(f"there is no case {unknown}")
    return [
        one if one in cases else pytest.param(*_values(one), marks=pytest.mark.long)
        for one in every
    ]


def _values(case: Any) -> tuple[Any, ...]:
    return case if isinstance(case, tuple) else (case,)
