"""Another policy is compared with a recorded decision after the same was done to both."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loragate_server.policy.decide import decide
from loragate_server.policy.decision import Decision, VerdictKind
from loragate_server.policy.known import KnownUse, apply_known
from loragate_server.policy.lineage import LineageRules
from loragate_server.policy.reapply import overruled_by, reapplied
from loragate_server.policy.review import Ruling, apply_rulings, subject_of

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
RULES = LineageRules()
LEARNED, SUSPICIOUS, CLEAN = 7.0, 5.0, 0.5

Make = Callable[..., Any]


@pytest.fixture(scope="session")
def decided(policy: Make, evidence: Make, concept: Make, adapter: Make) -> Make:
    def make(*scores: float, extra: str = "") -> Decision:
        concepts = [
            concept(score, concept_id=f"concept-{number}", p_value=0.5)
            for number, score in enumerate(scores)
        ]
        return decide(policy(extra), evidence(*concepts, adapters=(adapter(),)), now=NOW)

    return make


def ruled(decision: Decision, approved: bool, suspected: Decision) -> Decision:
    subject = subject_of(suspected)
    assert subject is not None
    end = NOW + timedelta(days=1) if approved else None
    return apply_rulings(decision, [Ruling("r1", subject, approved, ("a",), "Seen.", end)], NOW)


def blocked_before(decision: Decision) -> Decision:
    return apply_known(decision, [KnownUse("d1", NOW, "b" * 64, (), blocked=True)])


def listed(policy_list: str, sha256: str) -> str:
    return f'{policy_list}:\n  - sha256: "{sha256}"\n    note: ours\n'


def test_a_decision_that_nothing_overruled_is_left_to_the_policy(decided: Make) -> None:
    other = decided(LEARNED)
    assert overruled_by(decided(CLEAN)) == ()
    assert reapplied(decided(CLEAN), other, RULES) is other


def test_what_people_rejected_stays_blocked_under_any_policy(decided: Make) -> None:
    suspected = decided(SUSPICIOUS)
    rejected = ruled(suspected, False, suspected)
    again = reapplied(rejected, decided(CLEAN), RULES)
    assert again.would_be_verdict is VerdictKind.BLOCK
    assert again.reasons[0] == rejected.reasons[0]


def test_what_people_approved_is_let_through_only_where_they_could_have_seen_it(
    decided: Make,
) -> None:
    suspected = decided(SUSPICIOUS, CLEAN)
    approved = ruled(suspected, True, suspected)
    assert approved.would_be_verdict is VerdictKind.ALLOW
    same, milder = decided(SUSPICIOUS, CLEAN), decided(CLEAN, CLEAN)
    more, graver = decided(SUSPICIOUS, SUSPICIOUS), decided(LEARNED, CLEAN)
    assert reapplied(approved, same, RULES).would_be_verdict is VerdictKind.ALLOW
    assert reapplied(approved, milder, RULES).would_be_verdict is VerdictKind.ALLOW
    assert reapplied(approved, more, RULES).would_be_verdict is VerdictKind.REVIEW
    assert reapplied(approved, graver, RULES).would_be_verdict is VerdictKind.BLOCK


def test_what_was_on_record_as_blocked_stays_so_unless_the_policy_vouches(decided: Make) -> None:
    known = blocked_before(decided(CLEAN))
    [sha256] = {one.sha256 for one in known.evidence.adapters}
    assert reapplied(known, decided(CLEAN), RULES).would_be_verdict is VerdictKind.BLOCK
    vouching = decided(CLEAN, extra=listed("allow_sha256", sha256))
    assert reapplied(known, vouching, RULES).would_be_verdict is VerdictKind.ALLOW


@given(
    scores=st.lists(st.sampled_from([LEARNED, SUSPICIOUS, CLEAN]), min_size=1, max_size=3),
    approved=st.booleans(),
    known=st.booleans(),
    vouched=st.booleans(),
)
def test_the_policy_that_decided_decides_the_same_again(
    decided: Make, scores: list[float], approved: bool, known: bool, vouched: bool
) -> None:
    plain = decided(*scores)
    [sha256] = {one.sha256 for one in plain.evidence.adapters}
    if vouched:
        plain = decided(*scores, extra=listed("allow_sha256", sha256))
    recorded = blocked_before(plain) if known else plain
    recorded = ruled(recorded, approved, decided(*[SUSPICIOUS] * len(scores)))
    assert reapplied(recorded, plain, RULES).would_be_verdict is recorded.would_be_verdict
