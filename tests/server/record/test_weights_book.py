"""Which ruled-out files hold which weights, on both databases."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from loragate_server.policy.decision import Decision
from loragate_server.record import weights_book
from loragate_server.record.recorder import Recorder
from loragate_server.record.tables import file_weights
from loragate_server.record.verdict import Caller
from loragate_server.record.weights_book import UNKNOWN, WeightsBook
from loragate_server.record.weights_rows import read_weights, weights_since

FIRST, SECOND, OTHER, NEVER = "1" * 64, "2" * 64, "3" * 64, "4" * 64
SAME, APART = "a" * 64, "b" * 64


@pytest.fixture
def ask(recorder: Recorder, decision: Callable[..., Decision]) -> Callable[[str, str], None]:
    """Records a decision about a file with these weights."""

    def make(sha256: str, weights: str) -> None:
        made = decision(sha256s=(sha256,))
        [adapter] = made.evidence.adapters
        adapters = (replace(adapter, weights_sha256=weights),)
        evidence = replace(made.evidence, adapters=adapters)
        recorder.record(replace(made, evidence=evidence), Caller("images"), stage_times_s={})

    return make


def test_a_file_is_written_down_once_with_its_weights(
    recorder: Recorder, ask: Callable[[str, str], None]
) -> None:
    for _ in range(2):
        ask(FIRST, SAME)
    ask(SECOND, SAME)
    ask(OTHER, "")
    with recorder.database.reading() as connection:
        assert read_weights(connection, [FIRST, SECOND, OTHER]) == {FIRST: SAME, SECOND: SAME}
        now = datetime.now(UTC)
        assert weights_since(connection, now - timedelta(minutes=1)).keys() == {FIRST, SECOND}
        assert weights_since(connection, now + timedelta(minutes=1)) == {}


def test_a_book_follows_what_is_ruled_out_and_what_others_record(
    recorder: Recorder, ask: Callable[[str, str], None]
) -> None:
    ruled = {FIRST, NEVER}
    book = WeightsBook(recorder.database, lambda: frozenset(ruled))
    book.refresh()
    assert book.twins_of(SECOND) == ()
    ask(FIRST, SAME)
    ask(OTHER, APART)
    book.refresh()
    assert book.twins_of(SECOND, SAME) == (FIRST,)
    assert book.twins_of(SECOND, APART) == ()
    assert book.twins_of(SECOND) == (UNKNOWN,)
    book.saw(SECOND, SAME)
    assert book.twins_of(SECOND) == (FIRST,)
    ruled.add(SECOND)
    ruled.remove(FIRST)
    book.refresh()
    assert book.twins_of(FIRST, SAME) == (SECOND,)
    ruled.clear()
    book.refresh()
    assert book.twins_of(FIRST, SAME) == ()


@pytest.mark.parametrize("ahead_s", [30, 90, 3600])
def test_a_clock_that_is_ahead_hides_nothing(
    recorder: Recorder, ask: Callable[[str, str], None], ahead_s: int
) -> None:
    book = WeightsBook(recorder.database, lambda: frozenset({FIRST}))
    book.refresh()
    with recorder.database.writing() as connection:
        later = datetime.now(UTC) + timedelta(seconds=ahead_s)
        row = {"sha256": OTHER, "weights_sha256": APART, "learned_at": later}
        connection.execute(file_weights.insert(), row)
    book.refresh()
    ask(FIRST, SAME)
    book.refresh()
    assert book.twins_of(SECOND, SAME) == (FIRST,)


def test_what_a_clock_that_is_behind_wrote_is_looked_up_now_and_then(
    recorder: Recorder, ask: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(OTHER, APART)
    book = WeightsBook(recorder.database, lambda: frozenset({FIRST}))
    book.refresh()
    with recorder.database.writing() as connection:
        before = datetime.now(UTC) - timedelta(hours=1)
        row = {"sha256": FIRST, "weights_sha256": SAME, "learned_at": before}
        connection.execute(file_weights.insert(), row)
    book.refresh()
    assert book.twins_of(SECOND, SAME) == ()
    monkeypatch.setattr(weights_book.time, "monotonic", lambda: time.monotonic_ns() / 1e9 + 31)
    book.refresh()
    assert book.twins_of(SECOND, SAME) == (FIRST,)


def test_a_ruled_out_file_counts_as_soon_as_intake_has_seen_it(recorder: Recorder) -> None:
    book = WeightsBook(recorder.database, lambda: frozenset({FIRST}))
    book.refresh()
    book.saw(FIRST, SAME)
    assert book.twins_of(SECOND, SAME) == (FIRST,)


def test_what_was_forgotten_is_unknown_and_not_harmless(recorder: Recorder) -> None:
    book = WeightsBook(recorder.database, lambda: frozenset({FIRST}), remembered=1)
    book.refresh()
    for sha256 in (FIRST, SECOND, OTHER):
        book.saw(sha256, SAME)
    assert book.twins_of(OTHER) == (FIRST,)
    assert book.twins_of(SECOND) == (UNKNOWN,)
