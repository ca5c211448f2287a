"""What is found of blocked ones in sums, against every sum of a request looked at by itself."""

from __future__ import annotations

from itertools import combinations, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loragate_server.gate import sums
from loragate_server.gate.blocked import Asked, Blocked, _measured
from loragate_server.gate.kinship import PART_COSINE
from loragate_server.policy.lineage import Kin
from loragate_server.policy.review import ReviewedAdapter

from .test_sums import blocked

Numbers = np.ndarray[Any, np.dtype[np.float64]]
Told = set[tuple[str, bool]]

STRENGTHS = ([1.0], [1.0], [-1.0], [0.5, 1.0], [2.0])
NOISES, KNOWN = 3, 3
"""Changes that several adapters of a request share, and that are blocked."""


def request(seed: int) -> tuple[Blocked, list[Asked]]:
    """Random factors: what is blocked, noise that others cancel, and noise of one's own.

    Mostly one of the blocked is cut into parts whose noise cancels, beside others. Of some, text
    encoders are changed too; a file may stand twice, be loud, or have a strength below 0.
    """
    wild = np.random.default_rng(seed)
    size = int(wild.choice([1024, 2048]))

    def noise(count: int, loud: float = 1.0) -> Numbers:
        return wild.standard_normal((count, size)) * (loud / 32)

    known, shared = noise(KNOWN), noise(NOISES)
    known[1] += wild.choice([0.0, 0.7, -0.4]) * known[0]

    def anything() -> Numbers:
        amounts = wild.choice([0.0, 0.0, 0.0, 0.11, 0.27, 0.53, 1.0], KNOWN)
        cancel = wild.choice([0.0, 0.0, 1.0, -1.0, 3.0, -1e3], NOISES)
        own = noise(1, wild.choice([0.1, 1.0, 2.0]))[0]
        return np.asarray(amounts @ known + cancel @ shared + own)

    count = int(wild.integers(0, 5))
    cut = noise(max(count, 1), wild.choice([0.0, 0.5, 2.0, 1e3]))
    cut += known[0] * wild.choice([0.47, 0.83, 1.0]) / max(count, 1) - cut.mean(axis=0)
    if count > 2:  # which have nothing in common with the others then, so loud are they
        cut[:2] += np.outer([1.0, -1.0], noise(1, wild.choice([0.0, 200.0]))[0])
    made = []
    for number in range(max(2, count) + int(wild.integers(0, 3))):
        readings = [anything() for _ in range(wild.integers(0, 3))]
        strengths = STRENGTHS[wild.integers(0, len(STRENGTHS))]
        if number < count:
            readings = [*readings[:1], cut[number] / strengths[-1]]
        ways = [ReviewedAdapter(f"{number:064x}", "", each, each) for each in strengths]
        made.append(Asked([one.astype("<f4").tobytes() for one in readings], ways))
    return blocked(*known), [*made, *made[: wild.integers(0, 2)]]


def by_each_sum(book: Blocked, asked: list[Asked]) -> Told:
    """Of which blocked ones any sum of two or more is a copy, or holds a part."""
    found: Told = set()
    for count in range(2, len(asked) + 1):
        for some in combinations(asked, count):
            for chosen in product(*(one.chosen for one in some)):
                for part in _measured(chosen, book.uses, book.changes):
                    found.add((book.uses[part.index].decision_id, part.copy))
    return found


def told_of(kin: tuple[Kin, ...]) -> Told:
    return {(one.blocked.decision_id, one.copy) for one in kin if one.amount}


def missing(expected: Told, found: Told) -> Told:
    return {one for one in expected - found if (one[0], True) not in found}


@settings(max_examples=150)
@given(st.integers(0, 2**32 - 1))
def test_nothing_that_any_sum_has_is_missed_and_nothing_else_is_told(
    seed: int,
) -> None:
    book, asked = request(seed)
    kin = book.kin_of(asked)
    expected = by_each_sum(book, asked)
    assert all(one.amount for one in kin)
    assert missing(expected, told_of(kin)) == set()
    assert told_of(tuple(one for one in kin if one.adapter is None)) <= expected
    assert book.recalled(asked) == kin


def by_the_most_alike(book: Blocked, asked: list[Asked]) -> set[str]:
    """What is found in that sum of all which is most like a blocked one, where it clearly is."""
    rows = book.changes.astype(np.float64)
    most: dict[int, tuple[float, Any]] = {}
    for count in range(1, len(asked) + 1):
        for some in combinations(asked, count):
            for chosen in product(*(one.chosen for one in some)):
                total = np.sum([change for _, change in chosen], axis=0)
                for cut in (slice(None), slice(1024)):
                    size = np.linalg.norm(total[cut]) * np.linalg.norm(rows[:, cut], axis=1)
                    for index, cosine in enumerate(rows[:, cut] @ total[cut] / size):
                        if cosine > most.get(index, (PART_COSINE + 0.03,))[0]:
                            most[index] = (float(cosine), chosen)
    return {
        book.uses[index].decision_id
        for index, (_, chosen) in most.items()
        if index in [part.index for part in _measured(chosen, book.uses, book.changes)]
    }


@settings(max_examples=150)
@given(st.integers(0, 2**32 - 1))
def test_the_sum_most_like_a_blocked_one_is_found_where_not_all_are_looked_at(seed: int) -> None:
    """As it is where they are too many, tried on few."""
    book, asked = request(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sums, "MOST_EXACT", 0)
        kin = book.kin_of(asked)
    assert by_the_most_alike(book, asked) <= {one.blocked.decision_id for one in kin}
