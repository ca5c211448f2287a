"""Sums of a request's adapters that have something of blocked ones: none is passed over unsaid."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from itertools import combinations, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loragate_server.gate import blocked as blocked_module
from loragate_server.gate import sums
from loragate_server.gate.blocked import Asked, Blocked
from loragate_server.gate.kinship import CANDIDATE_COSINE, change_of
from loragate_server.gate.lineage_book import decisions_of
from loragate_server.policy.decision import VerdictKind
from loragate_server.policy.known import KnownUse
from loragate_server.policy.lineage import UNSEEN_CODE, Kin, LineageRules
from loragate_server.policy.review import ReviewedAdapter
from testkit.waiting import busyness

Numbers = np.ndarray[Any, np.dtype[np.float64]]


def noise(seed: int, size: float = 1.0) -> Numbers:
    found = np.random.default_rng(seed).standard_normal(1024)
    return found * (size / np.linalg.norm(found))


def asked(number: int, *readings: Numbers, strength: float = 1.0) -> Asked:
    way = ReviewedAdapter(f"{number:064x}", "", strength, strength)
    return Asked([one.astype("<f4").tobytes() for one in readings], [way])


def blocked(*changes: Numbers) -> Blocked:
    uses = [
        KnownUse(
            f"decision-{number}",
            datetime(2026, 1, 1, tzinfo=UTC),
            "base",
            (ReviewedAdapter(f"{255 - number:x}" * 32, "", 1.0, 1.0),),
            blocked=True,
        )
        for number in range(len(changes))
    ]
    rows = [change_of(one.astype("<f4").tobytes(), 1.0, 1.0) for one in changes]
    return Blocked(uses, np.array(rows, np.float32))


def together(kin: Sequence[Kin]) -> list[tuple[str, bool, bool]]:
    return [
        (one.blocked.decision_id, one.copy, one.amount > 0) for one in kin if one.adapter is None
    ]


@given(
    readings=st.lists(st.integers(1, 2), min_size=2, max_size=4),
    shared=st.lists(st.integers(0, 3), min_size=8, max_size=8),
    seed=st.integers(0, 999),
)
def test_every_sum_that_is_most_like_a_known_change_is_among_those_found(
    readings: list[int], shared: list[int], seed: int
) -> None:
    """Against all sums, one by one: what is left out holds less than a part that is found.

    Each adapter has noise that others may cancel or that is its own, and half of a known change
    or nothing of it.
    """
    known = np.array([noise(seed), noise(seed + 5000)])
    made = [
        noise(seed + 100 + (at if kind > 1 else 0), 2.0) * (1 if at % 2 else -1)
        + 0.5 * (kind % 2) * known[at // 2 % 2]
        for at, kind in enumerate(shared[: sum(readings)])
    ]
    owners = [number for number, count in enumerate(readings) for _ in range(count)]
    changes = np.array(made)
    found = np.zeros(2)
    book = sums.Known(known.astype(np.float32))
    for one in sums.alike_sums(owners, changes, book, lambda _, each: each.max(axis=1) > 0):
        assert one.whole
        best_of_group = np.max(one.cosines, axis=0, initial=0.0)
        found[one.known] = np.maximum(found[one.known], best_of_group)
    best = np.zeros(2)
    for count in range(2, len(readings) + 1):
        for some in combinations(range(len(readings)), count):
            for there in product(*([i for i, o in enumerate(owners) if o == one] for one in some)):
                total = changes[list(there)].sum(axis=0)
                size = np.linalg.norm(total)
                if size > 0:
                    best = np.maximum(best, known @ total / size)
    for index in np.flatnonzero(best >= CANDIDATE_COSINE + 0.05):
        alone = known[index] @ changes.T / np.linalg.norm(changes, axis=1)
        assert max(*alone, found[index]) >= best[index] - 0.05


@pytest.mark.parametrize("decoys", [0, 5, 6])
@pytest.mark.parametrize("last", [False, True])
def test_halves_are_found_beside_decoys_that_each_loader_reads_otherwise(
    decoys: int, last: bool
) -> None:
    known = noise(0)
    halves = [
        asked(1, noise(11), noise(12), known / 2 + noise(13, 0.01)),
        asked(2, known / 2 + noise(21, 0.01), noise(22), noise(23)),
    ]
    others = [
        asked(9 + n, *(noise(1000 + 100 * n + r, 3.0) for r in range(3))) for n in range(decoys)
    ]
    every = [*others, *halves] if last else [*halves, *others]
    assert together(blocked(known).kin_of(every)) == [("decision-0", True, True)]


def test_halves_are_found_among_as_many_adapters_as_a_policy_may_allow() -> None:
    known = noise(0)
    halves = [asked(n, known / 2 + noise(n + 10, 0.01)) for n in (1, 2)]
    others = [asked(n, noise(n + 50)) for n in range(3, 65)]
    assert together(blocked(known).kin_of([*others, *halves])) == [("decision-0", True, True)]


def crowd(count: int, readings: int, hidden: Numbers | float = 0.0) -> list[Asked]:
    """Adapters that are all related: each has something of one change, which others cancel."""
    common = noise(7)
    return [
        asked(
            n, *(noise(1000 * n + r) + common * (1 - n % 2 * 2) + hidden for r in range(readings))
        )
        for n in range(count)
    ]


def test_sums_that_are_too_many_to_look_at_are_no_allow_and_cost_little() -> None:
    known = [noise(20_000 + n) for n in range(200)]
    many, hides = blocked(*known), 0.11 * known[5]
    began_s = time.monotonic()
    kin = many.kin_of(crowd(12, 3, hides))
    assert time.monotonic() - began_s < 5.0 + busyness()
    assert ("decision-5", False, False) in together(kin)
    assert many.recalled(crowd(12, 3, hides)) == kin
    assert many.recalled(crowd(11, 3, hides)) is None


@pytest.mark.parametrize("readings", [4, 30])
def test_a_policy_that_allows_very_many_adapters_costs_no_minutes(readings: int) -> None:
    many = blocked(*(noise(20_000 + n) for n in range(100)))
    request = [asked(n, *(noise(99 * n + r) for r in range(readings))) for n in range(64)]
    began_s = time.monotonic()
    assert not all(seen for _, _, seen in together(many.kin_of(request)))
    assert time.monotonic() - began_s < 5.0 + busyness()


def test_equal_questions_at_one_moment_are_worked_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    book, request, begun = blocked(noise(0)), crowd(8, 3), []
    look, ready = sums.alike_sums, threading.Barrier(4)

    def noted(*question: Any) -> Any:
        begun.append(question)
        return look(*question)

    def ask(_: int) -> Sequence[Kin]:
        ready.wait(10)
        return book.kin_of(request)

    monkeypatch.setattr(blocked_module, "alike_sums", noted)
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(ask, range(4)))
    assert answers == [answers[0]] * 4
    assert len(begun) == 1


@pytest.mark.parametrize(("count", "readings"), [(4, 1), (8, 3)])
def test_adapters_that_can_come_to_nothing_blocked_are_looked_at_to_the_end(
    count: int, readings: int
) -> None:
    """However many are blocked, and however related they are."""
    many = blocked(*(noise(20_000 + n) for n in range(1000)))
    assert together(many.kin_of(crowd(count, readings))) == []


def test_fits_that_are_too_many_are_no_allow_either(monkeypatch: pytest.MonkeyPatch) -> None:
    known = [noise(n) for n in range(6)]
    parts = [asked(n, one * 0.25 + noise(90 + n)) for n, one in enumerate(known)]
    assert all(seen for _, _, seen in together(blocked(*known).kin_of(parts)))
    monkeypatch.setattr(blocked_module, "MOST_MEASURED", 0)
    told = together(blocked(*known).kin_of(parts))
    assert told
    assert not any(seen for _, _, seen in told)


def test_a_key_tells_whether_something_is_a_copy_a_part_or_was_not_compared() -> None:
    """By whichever else is known the same decision may come to mean more."""
    known = noise(0)
    [copy] = blocked(known).kin_of([asked(1, known)])
    each = [copy, replace(copy, copy=False), replace(copy, copy=False, amount=0.0)]
    assert len({decisions_of([one]) for one in each}) == 3
    assert decisions_of(each) == decisions_of([*reversed(each), replace(copy, adapter=None)])


@pytest.mark.parametrize("code", ["copies", "parts"])
def test_what_was_not_looked_at_is_judged_as_the_worst_that_it_may_be(code: str) -> None:
    rules = {"copies": VerdictKind.ALLOW, "parts": VerdictKind.ALLOW, code: VerdictKind.BLOCK}
    assert LineageRules(**rules).verdict_of(UNSEEN_CODE) is VerdictKind.BLOCK


def decoyed(*parts: Numbers, decoys: int = 9, copies: int = 1) -> list[Asked]:
    """Adapters among others, whose sums with them are too many to look at each."""
    others = [
        asked(99 + n, *(noise(1000 + 100 * n + r, 3.0) for r in range(3))) for n in range(decoys)
    ]
    return [*others, *(asked(n, *[one] * copies) for n, one in enumerate(parts))]


@pytest.mark.parametrize("decoys", [0, 9])
@pytest.mark.parametrize("loud", [1.0, 1e2, 1e3])
def test_what_a_third_cancels_of_two_whose_noise_cancels_hides_nothing(
    decoys: int, loud: float
) -> None:
    """The third has nothing in common with any of the two, so loud are they."""
    known, rest = noise(0), 6 * noise(5)
    parts = (known / 2 + loud * 200 * noise(6), known / 2 - loud * 200 * noise(6) + rest, -rest)
    told = together(blocked(known).kin_of(decoyed(*parts, decoys=decoys)))
    assert ("decision-0", True, True) in told


@pytest.mark.parametrize("decoys", [0, 9])
@pytest.mark.parametrize("count", [2, 5, 12, 16])
def test_noise_that_all_of_many_cancel_hides_nothing(count: int, decoys: int) -> None:
    """Of sixteen, two have a fifteenth in common, and less with what is blocked."""
    known = noise(0)
    rows = np.stack([known, *(noise(100 + n) for n in range(count))])
    wild = np.linalg.qr(rows.T)[0].T[1:]
    parts = [known / count + 3.0 * (one - wild.mean(axis=0)) for one in wild]
    told = together(blocked(known).kin_of(decoyed(*parts, decoys=decoys)))
    assert told
    assert told[0] in (("decision-0", True, True), ("decision-0", False, False))


@pytest.mark.parametrize("count", [40, 64])
def test_many_that_have_next_to_nothing_each_are_no_allow(count: int) -> None:
    known = noise(0)
    each = [noise(100 + n) for n in range(count)]
    parts = [0.049 * known + one - known * (one @ known) for one in each]
    assert together(blocked(known).kin_of([asked(n, one) for n, one in enumerate(parts)]))


def test_a_loud_adapter_that_is_a_little_like_blocked_ones_is_looked_at_to_the_end() -> None:
    """With related ones beside it, so that hundreds of their sums are as much like these."""
    common, style = noise(7), noise(8)
    known = [noise(n) + 0.6 * common for n in range(2)]
    loud = [15 * (noise(500) + 0.44 * common + noise(510 + n, 0.3)) for n in range(2)]
    others = [
        asked(201 + n, *(noise(600 + 9 * n) + 0.8 * style + noise(700 + 9 * n + r) for r in (0, 1)))
        for n in range(5)
    ]
    assert blocked(*known).kin_of([asked(200, *loud), *others]) == ()


def test_a_file_that_is_read_otherwise_is_looked_at_anew() -> None:
    known = noise(0)
    book = blocked(known)
    other = asked(5, noise(6))
    assert book.kin_of([asked(1, noise(1))]) == book.kin_of([asked(1, noise(1)), other]) == ()
    assert [one.copy for one in book.kin_of([asked(1, known)])] == [True]
    assert [one.copy for one in book.kin_of([asked(1, known), other])] == [True]


def test_two_readings_are_not_taken_for_one_that_is_as_long() -> None:
    known, book = noise(0), blocked(noise(0))
    way = asked(1, known).ways
    one = Asked([np.concatenate([noise(1), known]).astype("<f4").tobytes()], way)
    two = asked(1, noise(1), known)
    assert book.kin_of([one]) == ()
    assert [kin.copy for kin in book.kin_of([two])] == [True]


def test_a_blocked_one_that_is_allowed_weakly_does_not_hide_what_the_denoiser_holds() -> None:
    """What is loud in text encoders may have no effect; what is said of it silences nothing."""
    nothing = np.zeros(1024)
    hidden, own = np.concatenate([noise(0), nothing]), np.concatenate([noise(0, 0.5), noise(1, 8)])
    book = blocked(hidden, own)
    again = replace(book.uses[1].members[0], denoiser_strength=0.5, text_encoder_strength=0.5)
    used = Asked([own.astype("<f4").tobytes()], [again])
    rest = asked(5, np.concatenate([noise(0, 0.6) + noise(3, 0.01), noise(2, 4)]))
    assert together(book.kin_of([used, rest])) == [("decision-0", False, True)]


@pytest.mark.parametrize(("weak", "rest"), [(0.74, 0.09), (0.5, 0.3), (0.2, 0.7)])
def test_a_weak_copy_and_the_rest_are_a_copy_as_one_file_would_be(weak: float, rest: float) -> None:
    known = noise(0)
    [kin] = blocked(known).kin_of([asked(1, weak * known), asked(2, rest * known)])
    assert (kin.adapter, kin.copy) == (None, True)
    assert kin.amount == pytest.approx(weak + rest, rel=0.01)


def test_a_copy_does_not_hide_what_it_holds_besides() -> None:
    first, second = noise(0), noise(1)
    kin = blocked(first, second).kin_of([asked(1, first + 0.45 * second)])
    assert [(one.blocked.decision_id, one.copy) for one in kin] == [
        ("decision-0", True),
        ("decision-1", False),
    ]
    assert kin[1].amount == pytest.approx(0.45, abs=0.05)
    twice = blocked(first, first + noise(5, 0.1)).kin_of([asked(1, first)])
    assert len(twice) == 1
