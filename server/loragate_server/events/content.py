"""What an event says: the `data` of each kind, from what is on record.

Numbers that were measured are left out unless the operator wants them: an event goes to chat rooms
and tickets, and who makes adapters could learn there how near to a limit they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from loragate_server.config.events import EventKind
from loragate_server.policy.decision import Finding, Mode, Reason, VerdictKind
from loragate_server.policy.reasons import told_without_numbers
from loragate_server.record.reviews.review import RecordedReview, ReviewAction, ReviewState
from loragate_server.record.verdict import Verdict
from loragate_server.wording.printable import printable

MOST_NAMED = 100
"""Adapters or concepts in one event; more are counted only."""
MAX_TEXT = 500
"""Letters of a text that came from outside."""

_OF_VERDICTS = {VerdictKind.BLOCK: EventKind.BLOCK, VerdictKind.REVIEW: EventKind.REVIEW}


@dataclass(frozen=True)
class Content:
    """How much is said.

    Attributes:
        scores: whether measured numbers are.
        console_url: address of the console's host, without a slash at its end; empty for no links.
    """

    scores: bool = False
    console_url: str = ""

    def of_decision(self, verdict: Verdict) -> dict[str, Any]:
        """What is said of a decision."""
        decision = verdict.decision
        return {
            **self._about(verdict),
            "decided_at": verdict.decided_at.isoformat(),
            "verdict": decision.verdict.value,
            "remedy": decision.remedy.value,
            "reasons": [self._reason(one) for one in decision.reasons[:MOST_NAMED]],
        }

    def of_review(self, review: RecordedReview, verdict: Verdict | None) -> dict[str, Any]:
        """What is said of a ruling.

        Args:
            review: the act that settled it, or opened it again.
            verdict: the decision that the reviewer looked at; None where it is on record no more.
        """
        event, ruling = review.event, review.ruling
        about = self._about(verdict) if verdict else _subject(review)
        return {
            **about,
            "review_id": event.review_id,
            "ruling": review.state.value,
            "reviewers": [clean(one) for one in (ruling.reviewers if ruling else ())]
            or [clean(event.reviewer)],
            "reason": clean(event.reason),
            "reviewed_at": event.reviewed_at.isoformat(),
            "expires_at": review.ends_at.isoformat() if review.ends_at else None,
        }

    def _about(self, verdict: Verdict) -> dict[str, Any]:
        """What a decision is about, and who asked."""
        decision, caller = verdict.decision, verdict.caller
        adapters = verdict.named_adapters
        found = [one for one in decision.findings if one.verdict is not VerdictKind.ALLOW]
        said = {
            "decision_id": verdict.decision_id,
            "adapters": [
                {"sha256": adapter.sha256, "name": clean(name)}
                for adapter, name in adapters[:MOST_NAMED]
            ],
            "adapter_count": len(adapters),
            "base_model": clean(decision.evidence.base_model),
            "policy_digest": decision.policy_digest,
            "concepts": [self._concept(one) for one in found[:MOST_NAMED]],
            "concept_count": len(found),
            "caller": {
                "service": clean(caller.service),
                "tenant": clean(caller.tenant),
                "identity": clean(caller.identity),
            },
        }
        if self.console_url:
            said["url"] = f"{self.console_url}/console/audits/{verdict.decision_id}"
        return said

    def _concept(self, finding: Finding) -> dict[str, Any]:
        evidence = finding.evidence
        said: dict[str, Any] = {
            "id": clean(evidence.concept_id),
            "name": clean(evidence.concept_name),
            "verdict": finding.verdict.value,
            "remedy": finding.remedy.value,
        }
        if self.scores:
            # JSON has no word for numbers that are none.
            said["score"] = _number(evidence.score)
            said["p_value"] = _number(evidence.p_value)
            said["degree"] = _number(evidence.degree)
        return said

    def _reason(self, reason: Reason) -> dict[str, str]:
        text = reason.message if self.scores else told_without_numbers(reason)
        return {"code": reason.code, "text": clean(text)}


def kind_of_decision(verdict: Verdict) -> EventKind | None:
    """Of what a decision is an event; None where others are not told of it."""
    if not verdict.binding or verdict.decision.mode is not Mode.ENFORCE:
        return None
    return _OF_VERDICTS.get(verdict.decision.verdict)


def kind_of_review(review: RecordedReview) -> EventKind | None:
    """Of what an act of a reviewer is an event; None for the first of two approvals."""
    if review.event.action is ReviewAction.REOPEN:
        return EventKind.REOPENED
    if review.state is ReviewState.REJECTED:
        return EventKind.REJECTED
    return EventKind.APPROVED if review.state is ReviewState.APPROVED else None


def _subject(review: RecordedReview) -> dict[str, Any]:
    """What a review is about, without the decision: which files, and suspected of what."""
    adapters, concept_ids = review.subject.adapters, review.subject.concept_ids
    return {
        "decision_id": review.event.decision_id,
        "adapters": [{"sha256": one.sha256} for one in adapters[:MOST_NAMED]],
        "adapter_count": len(adapters),
        "concepts": [{"id": clean(one)} for one in concept_ids[:MOST_NAMED]],
        "concept_count": len(concept_ids),
    }


def of_calibration(base_model: str, concept_ids: Sequence[str]) -> dict[str, Any]:
    """What is said of a base model whose calibration does not speak for all concepts."""
    return {
        "base_model": clean(base_model),
        "concepts": [{"id": clean(one)} for one in concept_ids[:MOST_NAMED]],
        "concept_count": len(concept_ids),
    }


def clean(text: str) -> str:
    """Text from outside, fit for every reader of JSON and for the eyes of people, not endless."""
    return printable(text, MAX_TEXT)


def _number(value: float) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None
