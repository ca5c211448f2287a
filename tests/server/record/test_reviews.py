"""Reviews on both databases: queue, four eyes, expiry, withdrawal, and what is on record."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.policy.decision import Decision, Finding, Mode, Reason, Remedy, VerdictKind
from loragate_server.policy.review import subject_of
from loragate_server.record.chain import verify_log
from loragate_server.record.recorder import Recorder
from loragate_server.record.reviews.book import ReviewBook
from loragate_server.record.reviews.review import ReviewAction, ReviewState
from loragate_server.record.reviews.reviews import RefusalCode, ReviewRefused, ReviewRules, Reviews
from loragate_server.record.verdict import Caller, Verdict

APPROVE, REJECT, REOPEN = ReviewAction.APPROVE, ReviewAction.REJECT, ReviewAction.REOPEN


def soon(**span: float) -> datetime:
    return datetime.now(UTC) + timedelta(**(span or {"days": 7}))


@pytest.fixture
def suspected(decision: Callable[..., Decision]) -> Callable[..., Decision]:
    """A decision that says REVIEW because of one concept."""

    def make(sha256: str = "a" * 64, severity: str = "low", mode: Mode = Mode.ENFORCE) -> Decision:
        made = decision(VerdictKind.REVIEW, sha256s=(sha256,), mode=mode)
        [concept] = made.evidence.concepts
        concept = replace(concept, severity=severity)
        return replace(
            made,
            verdict=VerdictKind.ALLOW if mode is Mode.PILOT else VerdictKind.REVIEW,
            would_be_verdict=VerdictKind.REVIEW,
            reasons=(Reason("concept_suspected", "The adapter may have learned 'Cat'."),),
            findings=(Finding(concept, VerdictKind.REVIEW, Remedy.QUARANTINE),),
            evidence=replace(made.evidence, concepts=(concept,), inconclusive=()),
        )

    return make


@pytest.fixture
def record(recorder: Recorder) -> Callable[..., Verdict]:
    def make(decision: Decision, **options: Any) -> Verdict:
        return recorder.record(decision, Caller("images"), stage_times_s={}, **options)

    return make


@pytest.fixture
def acts() -> list[ReviewAction]:
    return []


@pytest.fixture
def reviews(recorder: Recorder, acts: list[ReviewAction]) -> Reviews:
    rules = ReviewRules(frozenset({"high", "critical"}), timedelta(days=30))
    return Reviews(recorder, rules, told=acts.append)


def refusal(act: Callable[..., Any], *arguments: Any, **options: Any) -> RefusalCode:
    with pytest.raises(ReviewRefused) as caught:
        act(*arguments, **options)
    assert caught.value.message.endswith(".")
    assert caught.value.remedy.endswith(".")
    return caught.value.code


def approve(reviews: Reviews, verdict: Verdict, reviewer: str = "alice", **options: Any) -> Any:
    known: dict[str, Any] = {"reason": "fine", "position": 0, "expires_at": soon()}
    return reviews.act(verdict.decision_id, APPROVE, reviewer=reviewer, **{**known, **options})


def test_a_suspected_adapter_waits_once_however_often_it_is_asked_about(
    reviews: Reviews, record: Callable[..., Verdict], suspected: Callable[..., Decision]
) -> None:
    record(suspected())
    other = record(suspected("e" * 64))
    newest = record(suspected())
    cases, token = reviews.queue()
    assert token == ""
    assert [(case.verdict.decision_id, case.asked) for case in cases] == [
        (newest.decision_id, 2),
        (other.decision_id, 1),
    ]
    assert {case.state for case in cases} == {ReviewState.OPEN}
    assert reviews.open_count() == 2


def test_the_queue_comes_in_pages(
    reviews: Reviews, record: Callable[..., Verdict], suspected: Callable[..., Decision]
) -> None:
    recorded = [record(suspected(f"{number:064x}")).decision_id for number in range(5)]
    seen, token = [], ""
    for _ in range(3):
        cases, token = reviews.queue(2, token)
        seen += [case.verdict.decision_id for case in cases]
    assert token == ""
    assert seen == recorded[::-1]


def test_an_approval_settles_the_subject_and_is_in_the_log(
    reviews: Reviews,
    record: Callable[..., Verdict],
    suspected: Callable[..., Decision],
    acts: list[ReviewAction],
    log_path: Path,
) -> None:
    verdict = record(suspected())
    case = approve(reviews, verdict, reason="  it is our own cat ")
    assert case.state is ReviewState.APPROVED
    assert (case.events[0].reviewer, case.events[0].reason) == ("alice", "it is our own cat")
    assert reviews.queue() == ([], "")
    assert reviews.case(verdict.decision_id) == case
    assert acts == [APPROVE]
    lines = [json.loads(line) for line in log_path.read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["decision", "review"]
    assert lines[1]["review"]["event"]["reviewer"] == "alice"
    assert lines[1]["review"]["event"]["decision_id"] == verdict.decision_id
    assert lines[1]["review"]["ruling"]["approved"] is True
    assert verify_log(log_path).intact


def test_a_severe_concept_needs_two_different_people(
    reviews: Reviews, record: Callable[..., Verdict], suspected: Callable[..., Decision]
) -> None:
    verdict = record(suspected(severity="critical"))
    early = soon(days=1)
    first = approve(reviews, verdict, expires_at=early)
    assert (first.state, first.needs_second) == (ReviewState.AWAITING_SECOND, True)
    assert [case.state for case in reviews.queue()[0]] == [ReviewState.AWAITING_SECOND]
    again = refusal(approve, reviews, verdict, "ALICE", position=1)
    assert again is RefusalCode.SAME_REVIEWER
    second = approve(reviews, verdict, "bob", position=1)
    assert second.state is ReviewState.APPROVED
    assert reviews.open_count() == 0


def test_a_form_that_is_sent_twice_or_late_is_refused(
    reviews: Reviews,
    record: Callable[..., Verdict],
    suspected: Callable[..., Decision],
    log_path: Path,
) -> None:
    verdict = record(suspected())
    approve(reviews, verdict)
    for position in (0, 2, -1):
        assert refusal(approve, reviews, verdict, position=position) is RefusalCode.STALE
    assert len(log_path.read_text().splitlines()) == 2


def test_a_rejection_needs_no_second_person_and_withdraws_an_approval(
    reviews: Reviews, record: Callable[..., Verdict], suspected: Callable[..., Decision]
) -> None:
    verdict = record(suspected(severity="low"))
    approve(reviews, verdict)
    act = {"reviewer": "bob", "reason": "it is a real person", "position": 1}
    case = reviews.act(verdict.decision_id, REJECT, **act)
    assert case.state is ReviewState.REJECTED
    late = {**act, "position": 2}
    assert refusal(reviews.act, verdict.decision_id, REJECT, **late) is RefusalCode.NOT_OPEN
    assert refusal(approve, reviews, verdict, position=2) is RefusalCode.NOT_OPEN


def test_only_an_admin_opens_a_settled_review_again(
    reviews: Reviews, record: Callable[..., Verdict], suspected: Callable[..., Decision]
) -> None:
    verdict = record(suspected())
    act: dict[str, Any] = {"reviewer": "carol", "reason": "new facts", "position": 0}
    opened = (reviews.act, verdict.decision_id, REOPEN)
    assert refusal(*opened, **act) is RefusalCode.ADMIN_ONLY
    assert refusal(*opened, **act, admin=True) is RefusalCode.NOT_OPEN
    approve(reviews, verdict)
    act["position"] = 1
    assert reviews.act(verdict.decision_id, REOPEN, **act, admin=True).state is ReviewState.OPEN
    assert reviews.open_count() == 1
    assert approve(reviews, verdict, position=2).state is ReviewState.APPROVED


@pytest.mark.parametrize("reason", ["", "  \n", "x" * 2001])
def test_a_review_needs_a_reason(
    reviews: Reviews,
    record: Callable[..., Verdict],
    suspected: Callable[..., Decision],
    reason: str,
) -> None:
    verdict = record(suspected())
    assert refusal(approve, reviews, verdict, reason=reason) is RefusalCode.REASON_MISSING


@pytest.mark.parametrize("days", [None, -1, 31])
def test_an_approval_has_an_end_within_the_limit(
    reviews: Reviews,
    record: Callable[..., Verdict],
    suspected: Callable[..., Decision],
    days: int | None,
) -> None:
    verdict = record(suspected())
    end = None if days is None else soon(days=days)
    assert refusal(approve, reviews, verdict, expires_at=end) is RefusalCode.EXPIRY_INVALID


def test_what_is_no_suspicion_cannot_be_reviewed(
    reviews: Reviews,
    record: Callable[..., Verdict],
    suspected: Callable[..., Decision],
    decision: Callable[..., Decision],
) -> None:
    for verdict in (
        record(decision(VerdictKind.ALLOW)),
        record(decision(VerdictKind.BLOCK)),
        record(suspected(), dry_run=True),
    ):
        assert not reviews.case(verdict.decision_id).reviewable
        assert refusal(approve, reviews, verdict) is RefusalCode.NOT_REVIEWABLE
    assert reviews.queue() == ([], "")
    with pytest.raises(NoDecisionError) as unknown:
        reviews.case("0" * 32)
    assert unknown.value.reason is ErrorReason.DECISION_UNKNOWN


def test_a_lapsed_approval_waits_again_once_it_is_asked_about(
    reviews: Reviews, record: Callable[..., Verdict], suspected: Callable[..., Decision]
) -> None:
    verdict = record(suspected())
    end = soon(milliseconds=150)
    approve(reviews, verdict, expires_at=end)
    while datetime.now(UTC) <= end:
        pass
    assert reviews.case(verdict.decision_id).state is ReviewState.EXPIRED
    assert reviews.open_count() == 0
    record(suspected())
    [case] = reviews.queue()[0]
    assert case.state is ReviewState.EXPIRED
    assert approve(reviews, verdict, position=1).state is ReviewState.APPROVED


def test_the_book_knows_what_is_in_force_and_follows_other_writers(
    reviews: Reviews,
    recorder: Recorder,
    record: Callable[..., Verdict],
    suspected: Callable[..., Decision],
) -> None:
    book = ReviewBook(recorder.database)
    book.refresh()
    verdict = record(suspected(severity="high"))
    approve(reviews, verdict)
    book.refresh()
    assert book.about(["a" * 64]) == ()
    approve(reviews, verdict, "bob", position=1)
    assert book.about(["a" * 64]) == ()
    book.refresh()
    [ruling] = book.about(["b" * 64, "a" * 64])
    assert ruling.approved
    assert ruling.reviewers == ("alice", "bob")
    assert ruling.subject == subject_of(verdict.decision)
    assert book.about(["b" * 64]) == ()
    reviews.act(verdict.decision_id, REJECT, reviewer="eve", reason="no", position=2)
    book.refresh()
    [ruling] = book.about(["a" * 64])
    assert (ruling.approved, ruling.reviewers) == (False, ("eve",))


def test_approvals_lapse_when_the_database_is_silent_and_rejections_do_not(
    reviews: Reviews,
    recorder: Recorder,
    record: Callable[..., Verdict],
    suspected: Callable[..., Decision],
) -> None:
    clock = [100.0]
    book = ReviewBook(recorder.database, stale_after_s=30, monotonic=lambda: clock[0])
    approve(reviews, record(suspected()))
    rejected = record(suspected("e" * 64))
    reviews.act(rejected.decision_id, REJECT, reviewer="eve", reason="no", position=0)
    book.refresh()
    both = ["a" * 64, "e" * 64]
    clock[0] += 30
    assert len(book.about(both)) == 2
    clock[0] += 1
    assert [ruling.approved for ruling in book.about(both)] == [False]


def test_a_pilot_is_reviewed_too(
    reviews: Reviews, record: Callable[..., Verdict], suspected: Callable[..., Decision]
) -> None:
    verdict = record(suspected(mode=Mode.PILOT))
    assert verdict.decision.verdict is VerdictKind.ALLOW
    assert approve(reviews, verdict).state is ReviewState.APPROVED


def test_a_review_that_the_log_does_not_take_is_not_in_force(
    reviews: Reviews,
    recorder: Recorder,
    record: Callable[..., Verdict],
    suspected: Callable[..., Decision],
    log_path: Path,
) -> None:
    verdict = record(suspected())
    log_path.rename(log_path.with_suffix(".moved"))
    log_path.mkdir()
    with pytest.raises(NoDecisionError) as failed:
        approve(reviews, verdict)
    assert failed.value.reason is ErrorReason.DECISION_LOG_UNAVAILABLE
    assert reviews.case(verdict.decision_id).state is ReviewState.OPEN
