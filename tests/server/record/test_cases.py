"""A file is one case, however it was asked about; approvals cover the uses that they name."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete

from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.policy.decision import Decision, Finding, Reason, Remedy, VerdictKind
from loragate_server.policy.review import apply_rulings
from loragate_server.record.chain import verify_log
from loragate_server.record.log import DecisionLog
from loragate_server.record.recorder import Recorder
from loragate_server.record.reviews.book import ReviewBook
from loragate_server.record.reviews.cases import Act
from loragate_server.record.reviews.refusals import RefusalCode, ReviewRefused
from loragate_server.record.reviews.review import FileCase, ReviewAction, ReviewState
from loragate_server.record.reviews.reviews import ReviewRules, Reviews
from loragate_server.record.tables import audits
from loragate_server.record.verdict import Caller, Verdict

APPROVE, REJECT, REOPEN = ReviewAction.APPROVE, ReviewAction.REJECT, ReviewAction.REOPEN
FILE = "a" * 64


@pytest.fixture
def reviews(recorder: Recorder) -> Reviews:
    rules = ReviewRules(frozenset({"high", "critical"}), timedelta(days=30))
    return Reviews(recorder, rules, told=lambda _: None)


@pytest.fixture
def asked(recorder: Recorder, decision: Callable[..., Decision]) -> Callable[..., Verdict]:
    """A service asks about files at a strength, and a person has to decide."""

    def ask(
        strength: float = 1.0,
        *sha256s: str,
        severity: str = "low",
        concept_id: str = "cat",
        service: str = "images",
    ) -> Verdict:
        made = decision(VerdictKind.REVIEW, sha256s=sha256s or (FILE,))
        [concept] = made.evidence.concepts
        concept = replace(concept, severity=severity, concept_id=concept_id)
        adapters = tuple(
            replace(one, denoiser_strength=strength, text_encoder_strength=strength)
            for one in made.evidence.adapters
        )
        suspected = replace(
            made,
            reasons=(Reason("concept_suspected", "The adapter may have learned 'Cat'."),),
            findings=(Finding(concept, VerdictKind.REVIEW, Remedy.QUARANTINE),),
            evidence=replace(
                made.evidence, concepts=(concept,), adapters=adapters, inconclusive=()
            ),
        )
        return recorder.record(suspected, Caller(service), stage_times_s={})

    return ask


def act(
    reviews: Reviews,
    verdict: Verdict,
    action: ReviewAction = APPROVE,
    who: str = "alice",
    of: FileCase | None = None,
    **chosen: Any,
) -> FileCase:
    """Somebody acts on what the page of a decision shows, or showed before."""
    case = of or reviews.file_case(verdict.decision_id)
    keys = [use.subject_key for use in case.uses]
    ends = datetime.now(UTC) + timedelta(days=7) if action is APPROVE else None
    return reviews.act_on_file(
        verdict.decision_id,
        Act(action, who, "seen", ends, admin=who == "root"),
        seen={use.subject_key: len(use.review.events) for use in case.uses},
        chosen=chosen.get("chosen", keys),
    )


def answer(recorder: Recorder, verdict: Verdict) -> VerdictKind:
    """What the same question is answered now."""
    book = ReviewBook(recorder.database)
    book.refresh()
    rulings = book.about(one.sha256 for one in verdict.decision.evidence.adapters)
    return apply_rulings(verdict.decision, rulings, datetime.now(UTC)).verdict


def test_a_file_waits_once_at_whatever_strength_it_was_asked_about(
    reviews: Reviews, asked: Callable[..., Verdict]
) -> None:
    asked(1.0, severity="critical")
    asked(0.5)
    other = asked(1.0, "e" * 64)
    newest = asked(0.5)
    asked(1.0, FILE, "e" * 64)  # together they are a case of their own
    together, mine, theirs = reviews.queue()[0]
    assert len(together.verdict.decision.evidence.adapters) == 2
    assert (mine.verdict.decision_id, mine.uses, mine.asked) == (newest.decision_id, 2, 3)
    assert mine.severities == {"low", "critical"}
    assert theirs.verdict.decision_id == other.decision_id
    assert reviews.open_count() == 3


def test_the_queue_of_cases_comes_in_pages_without_gaps(
    reviews: Reviews, asked: Callable[..., Verdict]
) -> None:
    for strength in (1.0, 0.5):
        for number in range(5):
            asked(strength, f"{number:064x}")
    seen, token = [], ""
    for _ in range(3):
        cases, token = reviews.queue(2, token)
        seen += [case.verdict.decision.evidence.adapters[0].sha256 for case in cases]
    assert token == ""
    assert seen == [f"{number:064x}" for number in (4, 3, 2, 1, 0)]


def test_a_case_lists_its_uses_and_who_asked(
    reviews: Reviews, asked: Callable[..., Verdict]
) -> None:
    full = asked(1.0)
    asked(1.0, service="batch")
    half = asked(0.5, concept_id="dog")
    case = reviews.file_case(full.decision_id)
    assert [use.review.asked for use in case.uses] == [2, 1]
    assert case.uses[0].review.verdict == full
    assert case.uses[0].services == ("batch", "images")
    assert case.uses[1].review.verdict.decision_id == half.decision_id
    assert (case.more, case.rejected) == (0, False)


def test_an_approval_lets_through_the_uses_that_it_names_and_no_other(
    reviews: Reviews, recorder: Recorder, asked: Callable[..., Verdict], log_path: Path
) -> None:
    half, full, other = asked(0.5), asked(1.0), asked(1.0, concept_id="dog")
    keys = [use.subject_key for use in reviews.file_case(half.decision_id).uses]
    case = act(reviews, half, chosen=keys[:2])
    assert [use.review.state for use in case.uses].count(ReviewState.APPROVED) == 2
    named = {use.review.verdict.decision_id for use in case.uses if use.review.events}
    for verdict in (half, full, other):
        wanted = VerdictKind.ALLOW if verdict.decision_id in named else VerdictKind.REVIEW
        assert answer(recorder, verdict) is wanted
    assert reviews.open_count() == 1
    kinds = [json.loads(line)["kind"] for line in log_path.read_text().splitlines()]
    assert kinds == ["decision"] * 3 + ["review"] * 2
    assert verify_log(log_path).intact


def test_a_use_that_nobody_was_asked_about_is_never_approved(
    reviews: Reviews, recorder: Recorder, asked: Callable[..., Verdict]
) -> None:
    half = asked(0.5)
    before = reviews.file_case(half.decision_id)
    act(reviews, half)
    full = asked(1.0)
    assert answer(recorder, full) is VerdictKind.REVIEW
    fresh = reviews.file_case(full.decision_id).uses[0].subject_key
    with pytest.raises(ReviewRefused) as refused:  # the page never showed it
        act(reviews, half, of=before, chosen=[fresh])
    assert refused.value.code is RefusalCode.STALE
    assert answer(recorder, asked(0.25)) is VerdictKind.ALLOW
    assert answer(recorder, asked(-0.25)) is VerdictKind.REVIEW


def test_a_use_that_was_asked_about_after_the_page_was_opened_stays_open(
    reviews: Reviews, recorder: Recorder, asked: Callable[..., Verdict]
) -> None:
    half = asked(0.5)
    shown = reviews.file_case(half.decision_id)
    full = asked(1.0)
    act(reviews, half, of=shown, chosen=[shown.uses[0].subject_key])
    assert answer(recorder, half) is VerdictKind.ALLOW
    assert answer(recorder, full) is VerdictKind.REVIEW
    assert reviews.open_count() == 1


def test_a_rejection_settles_the_whole_file_and_a_reopening_gives_back_no_approval(
    reviews: Reviews, recorder: Recorder, asked: Callable[..., Verdict]
) -> None:
    half, full = asked(0.5), asked(1.0)
    act(reviews, half)
    asked(2.0)
    case = act(reviews, full, REJECT, "bob")
    assert case.rejected
    assert {use.review.state for use in case.uses} == {ReviewState.REJECTED}
    assert reviews.open_count() == 0
    assert answer(recorder, asked(3.0)) is VerdictKind.BLOCK
    assert reviews.queue()[0] == [], "the file is blocked, so that nothing of it waits"
    case = act(reviews, half, REOPEN, "root")
    assert not case.rejected
    assert {use.review.state for use in case.uses} == {ReviewState.OPEN}
    assert answer(recorder, half) is VerdictKind.REVIEW
    assert reviews.open_count() == 1


def test_what_was_said_about_more_uses_than_are_settled_at_once_is_taken_back_too(
    reviews: Reviews,
    recorder: Recorder,
    asked: Callable[..., Verdict],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("loragate_server.record.reviews.reviews.MOST_AT_ONCE", 2)
    uses = [asked(strength) for strength in (0.5, 1.0, 1.5, 2.0, 2.5)]
    act(reviews, uses[0])
    case = act(reviews, uses[0], REOPEN, "root")
    assert {use.review.state for use in case.uses} == {ReviewState.OPEN}
    assert {answer(recorder, verdict) for verdict in uses} == {VerdictKind.REVIEW}


def forget(recorder: Recorder, verdict: Verdict) -> None:
    """The decision is pruned, as retention does when it is settled and old."""
    with recorder.database.writing() as connection:
        connection.execute(delete(audits).where(audits.c.decision_id == verdict.decision_id))


@pytest.mark.parametrize("first", [APPROVE, REJECT])
def test_what_was_said_about_a_use_of_which_no_decision_is_left_is_taken_back_too(
    reviews: Reviews, recorder: Recorder, asked: Callable[..., Verdict], first: ReviewAction
) -> None:
    old = asked(0.5)
    act(reviews, old, first)
    forget(recorder, old)
    new = asked(1.0)
    case = reviews.file_case(new.decision_id)
    assert case.rejected == (first is REJECT)
    assert len(case.past) == 1
    act(reviews, new, REOPEN, "root")
    assert answer(recorder, old) is VerdictKind.REVIEW
    assert reviews.file_case(new.decision_id).past == ()
    act(reviews, new)
    assert answer(recorder, new) is VerdictKind.ALLOW


def test_a_rejection_of_one_use_alone_blocks_all_and_can_be_reopened_from_any(
    reviews: Reviews, asked: Callable[..., Verdict]
) -> None:
    half, full = asked(0.5), asked(1.0)
    reviews.act(half.decision_id, REJECT, reviewer="eve", reason="no", position=0)
    case = reviews.file_case(full.decision_id)
    assert (case.looked_at.state, case.rejected) == (ReviewState.OPEN, True)
    assert reviews.open_count() == 0
    with pytest.raises(ReviewRefused) as refused:
        act(reviews, full)
    assert refused.value.code is RefusalCode.NOT_OPEN
    assert not act(reviews, full, REOPEN, "root").rejected


def test_severe_uses_need_two_people_and_mild_ones_of_the_same_file_one(
    reviews: Reviews, recorder: Recorder, asked: Callable[..., Verdict]
) -> None:
    mild, severe = asked(0.5, concept_id="hat"), asked(1.0, severity="critical")
    act(reviews, mild)
    assert answer(recorder, mild) is VerdictKind.ALLOW
    assert answer(recorder, severe) is VerdictKind.REVIEW
    [case] = reviews.queue()[0]
    assert (case.state, case.uses) == (ReviewState.AWAITING_SECOND, 1)
    key = reviews.file_case(severe.decision_id).uses[0].subject_key
    with pytest.raises(ReviewRefused) as refused:
        act(reviews, severe, who="ALICE", chosen=[key])
    assert refused.value.code is RefusalCode.SAME_REVIEWER
    act(reviews, severe, who="bob", chosen=[key])
    assert answer(recorder, severe) is VerdictKind.ALLOW


@pytest.mark.parametrize("action", [APPROVE, REJECT])
def test_of_two_people_who_act_on_the_same_page_the_second_is_refused(
    reviews: Reviews, asked: Callable[..., Verdict], action: ReviewAction, log_path: Path
) -> None:
    half, full = asked(0.5), asked(1.0)
    shown = reviews.file_case(half.decision_id)
    act(reviews, full, REJECT, "bob")
    lines = log_path.read_text()
    with pytest.raises(ReviewRefused) as refused:
        act(reviews, half, action, of=shown)
    assert refused.value.code is RefusalCode.STALE
    assert log_path.read_text() == lines


def test_an_approval_of_nothing_is_refused(reviews: Reviews, asked: Callable[..., Verdict]) -> None:
    with pytest.raises(ReviewRefused) as refused:
        act(reviews, asked(), chosen=[])
    assert refused.value.code is RefusalCode.USES_MISSING


def test_an_act_that_the_log_takes_half_of_is_in_force_nowhere(
    reviews: Reviews,
    recorder: Recorder,
    asked: Callable[..., Verdict],
    log_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    half, full = asked(0.5), asked(1.0)
    append, given = DecisionLog.append_review, []

    def once(log: DecisionLog, review: Any) -> Any:
        if given:
            raise NoDecisionError(ErrorReason.DISK_FULL, "No room.", remedy="Make some.")
        given.append(review)
        return append(log, review)

    monkeypatch.setattr(DecisionLog, "append_review", once)
    with pytest.raises(NoDecisionError):
        act(reviews, half)
    monkeypatch.undo()
    for verdict in (half, full):
        assert answer(recorder, verdict) is VerdictKind.REVIEW
    last = json.loads(log_path.read_text().splitlines()[-1])
    assert last["note"]["code"] == "review_void"
    assert last["note"]["review_id"] == given[0]["event"]["review_id"]


def test_uses_beyond_the_list_are_counted_and_not_approved(
    reviews: Reviews, recorder: Recorder, asked: Callable[..., Verdict]
) -> None:
    first = asked(9.0, concept_id="first")
    for number in range(25):
        newest = asked(1.0, concept_id=f"concept-{number}")
    case = reviews.file_case(newest.decision_id)
    assert (len(case.uses), case.more) == (20, 6)
    act(reviews, newest)
    assert answer(recorder, first) is VerdictKind.REVIEW
    assert reviews.queue()[0][0].uses == 6
    act(reviews, newest, REJECT, "bob")
    assert answer(recorder, first) is VerdictKind.BLOCK
    assert reviews.open_count() == 0


@pytest.mark.parametrize("whole_file", [True, False])
def test_a_page_of_before_a_concept_became_severe_still_needs_two_people(
    reviews: Reviews, recorder: Recorder, asked: Callable[..., Verdict], whole_file: bool
) -> None:
    mild = asked(1.0, severity="low")
    severe = asked(1.0, severity="critical")
    case = reviews.file_case(mild.decision_id)
    assert case.looked_at.needs_second
    if whole_file:
        act(reviews, mild)
    else:
        ends = datetime.now(UTC) + timedelta(days=7)
        reviews.act(
            mild.decision_id, APPROVE, reviewer="alice", reason="seen", position=0, expires_at=ends
        )
    assert reviews.case(severe.decision_id).state is ReviewState.AWAITING_SECOND
    assert answer(recorder, severe) is VerdictKind.REVIEW


def test_one_person_lets_through_no_weaker_use_of_what_has_become_severe(
    reviews: Reviews, recorder: Recorder, asked: Callable[..., Verdict]
) -> None:
    mild = asked(1.0, severity="low")
    severe = asked(0.5, severity="critical")  # which an approval of the stronger use covers
    case = reviews.file_case(mild.decision_id)
    act(reviews, mild, chosen=[case.uses[0].subject_key])
    assert answer(recorder, severe) is VerdictKind.REVIEW
    act(reviews, mild, who="bob", chosen=[case.uses[0].subject_key])
    assert answer(recorder, severe) is VerdictKind.ALLOW
