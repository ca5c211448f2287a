"""How much of known changes is in another one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loragate_server.gate.kinship import COPY_COSINE, parts_of

Numbers = np.ndarray[Any, np.dtype[np.float32]]


def known(count: int, seed: int = 0) -> Numbers:
    return np.random.default_rng(seed).standard_normal((count, 1024)).astype(np.float32)


@given(
    scale=st.floats(0.8, 50.0),
    of=st.integers(1, 40),
    noise=st.floats(0, 0.4),
    seed=st.integers(0, 9),
)
def test_a_copy_is_named_alone_at_whatever_scale(
    scale: float, of: int, noise: float, seed: int
) -> None:
    rows = known(of, seed)
    extra = known(1, 100 + seed)[0] * noise
    [part] = parts_of((rows[0] + extra) * scale, rows)
    assert (part.index, part.copy) == (0, True)
    assert part.amount == pytest.approx(scale, rel=0.1)
    assert part.share >= COPY_COSINE**2


def test_a_copy_that_carries_less_than_was_blocked_is_none() -> None:
    rows = known(5)
    assert parts_of(rows[2] * 0.7, rows) == ()
    assert parts_of(rows[2] * -1.0, rows) == ()
    assert parts_of(rows[2] * 0.0, rows) == ()
    assert parts_of(rows[2], rows[:0]) == ()


def test_of_two_copies_the_one_of_which_there_is_enough_is_named() -> None:
    row = known(1)[0]
    rows = np.stack([row, row * 0.3 + known(1, seed=9)[0] * 0.01])
    [part] = parts_of(row * 0.5, rows)
    assert (part.index, part.copy) == (1, True)


def test_a_weak_copy_does_not_hide_what_else_is_in_it() -> None:
    loud, blocked, other = known(3)
    merge = 5.0 * loud + blocked
    rows = np.stack([10.0 * loud, blocked, other])
    assert [(part.index, part.copy) for part in parts_of(merge, rows)] == []  # a fortieth of it
    merge = 2.0 * loud + blocked
    [part] = parts_of(merge, np.stack([20.0 * merge, blocked, other]))
    assert (part.index, part.copy) == (1, False)
    assert part.amount == pytest.approx(1.0, rel=0.25)


@pytest.mark.parametrize("count", [30, 300, 3000])
def test_a_large_family_does_not_share_a_change_until_none_has_any(count: int) -> None:
    parent = known(1)[0]
    rows = parent + 1.5 * known(count, seed=3)
    parts = parts_of(parent + 1.2 * known(1, seed=4)[0], rows)
    assert parts
    assert not any(part.copy for part in parts)


def test_a_change_whose_squares_overflow_is_compared_all_the_same() -> None:
    rows = known(3)
    [part] = parts_of(rows[1] * np.float32(1e25), rows)
    assert (part.index, part.copy) == (1, True)
    [part] = parts_of(rows[1], rows * np.float32(1e25) * np.float32([[1], [1e-25], [1]]))
    assert (part.index, part.copy) == (1, True)


@pytest.mark.parametrize("count", [2, 4, 8])
def test_the_parts_of_a_merge_are_named_with_their_shares(count: int) -> None:
    rows = known(60)
    found = parts_of(rows[:count].sum(0) / count, rows)
    assert {part.index for part in found} == set(range(count))
    assert not any(part.copy for part in found)
    assert sum(part.share for part in found) == pytest.approx(1.0, abs=0.1)
    for part in found:
        assert part.amount == pytest.approx(1 / count, rel=0.3)


def test_a_part_of_a_merge_with_strangers_is_named() -> None:
    rows, strangers = known(60), known(3, seed=5)
    [part] = parts_of(rows[7] + strangers.sum(0), rows)
    assert (part.index, part.copy) == (7, False)
    assert part.share == pytest.approx(0.25, abs=0.08)
    assert part.amount == pytest.approx(1.0, abs=0.2)


def test_unrelated_changes_have_no_parts_among_many_known_ones() -> None:
    rows = known(2000)
    assert not any(parts_of(one, rows) for one in known(300, seed=7))
