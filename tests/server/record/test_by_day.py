"""Counts by day, on both databases: days in UTC, and since when a review had waited."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from sqlalchemy import update

from loragate_server.policy.decision import Decision, Finding, Reason, Remedy, VerdictKind
from loragate_server.record import by_day
from loragate_server.record.by_day import Counted, concepts_by_day, settled_reviews, verdicts_by_day
from loragate_server.record.database import Span
from loragate_server.record.recorder import Recorder
from loragate_server.record.reviews.review import ReviewAction
from loragate_server.record.reviews.reviews import ReviewRules, Reviews
from loragate_server.record.search import Search
from loragate_server.record.tables import audits
from loragate_server.record.verdict import Caller, Verdict

Records = Callable[..., Verdict]
HOUR = timedelta(hours=1)
BEGIN = datetime.now(UTC) - 10 * HOUR


@pytest.fixture
def record(recorder: Recorder, decision: Callable[..., Decision]) -> Records:
    """A REVIEW, at a moment that is chosen."""

    def make(at: datetime, sha256: str = "a" * 64, *, dry_run: bool = False) -> Verdict:
        made = decision(VerdictKind.REVIEW, sha256s=(sha256,))
        [concept] = made.evidence.concepts
        made = replace(
            made,
            reasons=(Reason("concept_suspected", "The adapter may have learned it."),),
            findings=(Finding(concept, VerdictKind.REVIEW, Remedy.QUARANTINE),),
            evidence=replace(made.evidence, inconclusive=()),
        )
        verdict = recorder.record(made, Caller("x"), stage_times_s={}, dry_run=dry_run)
        moved = update(audits).where(audits.c.decision_id == verdict.decision_id)
        with recorder.database.writing() as connection:
            connection.execute(moved.values(decided_at=at))
        return verdict

    return make


@pytest.fixture
def act(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A reviewer acts, at a moment that is chosen."""
    rules = ReviewRules(frozenset(), timedelta(days=90))
    reviews = Reviews(recorder, rules, told=lambda _: None)

    def do(verdict: Verdict, action: ReviewAction, position: int, at: datetime) -> None:
        class Then(datetime):
            @classmethod
            def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
                return at

        with monkeypatch.context() as patched:
            patched.setattr("loragate_server.record.reviews.reviews.datetime", Then)
            reviews.act(
                verdict.decision_id, action, reviewer="ann", reason="Seen.", position=position,
                expires_at=at + HOUR, admin=True,
            )  # fmt: skip

    return do


def waited(recorder: Recorder, most: int = 100) -> list[int]:
    with recorder.database.reading() as connection:
        found = settled_reviews(connection, Span(), most)
    return [round(one.waited_s / HOUR.total_seconds()) for one in found]


def test_days_are_those_of_utc_wherever_the_clock_of_a_caller_is(
    recorder: Recorder, record: Records
) -> None:
    tokyo = timezone(9 * HOUR)
    record(datetime(2026, 3, 2, 8, 59, tzinfo=tokyo))
    record(datetime(2026, 3, 2, 9, 0, tzinfo=tokyo))
    record(datetime(2026, 3, 1, 23, 59, 59, 999999, tzinfo=UTC))
    record(datetime(2026, 3, 2, tzinfo=UTC), dry_run=True)
    with recorder.database.reading() as connection:
        verdicts = verdicts_by_day(connection, Span())
        concepts = concepts_by_day(connection, Span(since=datetime(2026, 3, 2, tzinfo=UTC)))
        concept_id = concepts[0].name
        names = by_day.newest_names(connection, [concept_id, "unknown"])
    assert sorted(verdicts, key=lambda one: one.day) == [
        Counted(date(2026, 3, 1), "REVIEW", 2), Counted(date(2026, 3, 2), "REVIEW", 1),
    ]  # fmt: skip
    assert concepts == [Counted(date(2026, 3, 2), concept_id, 1)]
    assert set(names) == {concept_id}


def test_a_review_waits_from_the_first_question_to_the_act_that_settles_it(
    recorder: Recorder, record: Records, act: Callable[..., None]
) -> None:
    verdict = record(BEGIN)
    record(BEGIN + HOUR)
    act(verdict, ReviewAction.APPROVE, 0, BEGIN + 3 * HOUR)
    assert waited(recorder) == [3]


def test_a_reopened_review_waits_from_then_and_taking_an_approval_back_waits_for_nothing(
    recorder: Recorder, record: Records, act: Callable[..., None]
) -> None:
    verdict = record(BEGIN)
    act(verdict, ReviewAction.APPROVE, 0, BEGIN + HOUR / 2)
    act(verdict, ReviewAction.REJECT, 1, BEGIN + HOUR)
    act(verdict, ReviewAction.REOPEN, 2, BEGIN + 2 * HOUR)
    act(verdict, ReviewAction.REJECT, 3, BEGIN + 7 * HOUR)
    assert waited(recorder) == [5, 0]
    assert waited(recorder, most=1) == [5]


def test_after_an_approval_has_lapsed_a_review_waits_from_the_next_question(
    recorder: Recorder, record: Records, act: Callable[..., None]
) -> None:
    verdict = record(BEGIN)
    act(verdict, ReviewAction.APPROVE, 0, BEGIN + HOUR)
    record(BEGIN + 4 * HOUR)
    act(verdict, ReviewAction.APPROVE, 1, BEGIN + 6 * HOUR)
    assert waited(recorder) == [2, 1]


def test_a_search_by_concept_and_reviewer_finds_the_decision(
    recorder: Recorder, record: Records, act: Callable[..., None]
) -> None:
    verdict = record(BEGIN)
    record(BEGIN, "b" * 64)
    act(verdict, ReviewAction.REJECT, 0, BEGIN + HOUR)
    [concept] = verdict.decision.evidence.concepts
    wanted = Search(
        concept_id=concept.concept_id,
        severities=(concept.severity,),
        least_degree=33.3,
        reviewer="ann",
    )
    found, _ = recorder.search(wanted)
    assert [one.decision_id for one in found] == [verdict.decision_id]
    assert recorder.database.count_found(wanted, 10) == 1
    assert recorder.search(replace(wanted, least_degree=33.4))[0] == []
