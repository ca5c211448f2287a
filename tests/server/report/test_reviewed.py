"""Reports on decisions that reviewers have changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from loragate_server.audit.evidence import Evidence
from loragate_server.policy.decision import Decision
from loragate_server.policy.review import Ruling, apply_rulings, subject_of
from loragate_server.record.verdict import Verdict
from loragate_server.report.view import report_on
from loragate_server.report.wording import report_wording

NOW = datetime.now(UTC)


@pytest.fixture
def suspected(recorded: Callable[..., Verdict], made: dict[str, tuple[Evidence, str, bool]]) -> Any:
    return recorded(*made["review"])


def reviewed(verdict: Verdict, *, approved: bool) -> Verdict:
    subject = subject_of(verdict.decision)
    assert subject is not None
    end = NOW + timedelta(days=7) if approved else None
    ruling = Ruling("r1", subject, approved, ("alice", "bob"), "Ticket 42", end)
    decision: Decision = apply_rulings(verdict.decision, [ruling], NOW)
    return replace(verdict, decision=decision)


def test_an_approval_is_told_with_its_people_its_reason_and_its_end(suspected: Verdict) -> None:
    report = report_on(reviewed(suspected, approved=True), report_wording("en"))
    assert report.verdict == "ALLOW"
    assert "reviewers have looked at it and approved its use" in report.headline
    assert "reviewers knew them" in report.found_note
    assert report.steps[0].startswith("No action is needed until the approval lapses")
    first = report.reasons[0]
    assert first.plain == "Reviewers have approved this use of the file."
    assert first.recorded.startswith("alice and bob approved this until ")
    assert first.recorded.endswith(": Ticket 42")


def test_a_rejection_is_told_as_a_decision_of_people(suspected: Verdict) -> None:
    report = report_on(reviewed(suspected, approved=False), report_wording("en"))
    assert report.verdict == "BLOCK"
    assert report.headline == "Reviewers have looked at this adapter and rejected its use."
    assert report.steps[0].startswith("Do not use the adapter. Reviewers have already decided")
    assert report.binding == "The image service must not load it."


@pytest.mark.parametrize("approved", [True, False])
def test_both_are_told_in_japanese(suspected: Verdict, approved: bool) -> None:
    report = report_on(reviewed(suspected, approved=approved), report_wording("ja"))
    assert ("承認しています" if approved else "却下しています") in report.headline
    assert report.reasons[0].plain != report.reasons[0].recorded
