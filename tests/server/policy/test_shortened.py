"""Of thousands of concepts, those that matter are told one by one, after all were decided over."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from loragate_server.audit.evidence import ConceptEvidence, Evidence
from loragate_server.audit.packed import whole
from loragate_server.config.schema import EMBEDDED_POLICY
from loragate_server.policy.decide import decide
from loragate_server.policy.decision import Decision, LeftOut, VerdictKind
from loragate_server.policy.parse import parse_policy
from loragate_server.policy.shortened import shortened
from testkit import evidence as made

POLICY = parse_policy(EMBEDDED_POLICY.read_bytes())


def harmless(count: int) -> tuple[ConceptEvidence, ...]:
    return tuple(
        made.concept(place / count, 0.5, concept_id=f"c{place:05}", family_p_value=0.9)
        for place in range(count)
    )


def decided(*concepts: ConceptEvidence, **facts: object) -> Decision:
    return decide(POLICY, made.evidence(*concepts, **facts), now=made.NOW)


def ids(decision: Decision) -> list[str]:
    return [one.evidence.concept_id for one in decision.findings]


def test_a_small_library_is_told_as_it_was() -> None:
    decision = decided(*harmless(20))
    assert shortened(decision, 20, 5.0) is decision
    assert decision.left_out is None


def test_the_highest_are_told_and_how_many_more_there_were() -> None:
    decision = decided(*harmless(1000))
    short = shortened(decision, 3, 5.0)
    assert ids(short) == ["c00999", "c00998", "c00997"]
    assert short.left_out == LeftOut(997, 0.996, 3, 5.0)
    assert [one.concept_id for one in short.evidence.concepts] == sorted(ids(short))
    assert whole(short.evidence) == decision.evidence
    assert "None of 1000 concepts" in short.reasons[0].message


def test_what_reaches_the_floor_is_told_as_well() -> None:
    short = shortened(decided(*harmless(1000)), 3, 0.99)
    assert len(short.findings) == 10
    assert short.left_out is not None
    assert short.left_out.highest_score < 0.99


def test_whatever_the_policy_acts_on_is_told_however_low_it_scores() -> None:
    learned = made.concept(-3.0, 1e-9, concept_id="learned", family_p_value=1e-9, degree=90.0)
    decision = decided(*harmless(100), learned)
    assert decision.verdict is VerdictKind.BLOCK
    short = shortened(decision, 1, 5.0)
    assert ids(short) == ["c00099", "learned"]
    assert (short.verdict, short.reasons, short.remedy) == (
        decision.verdict,
        decision.reasons,
        decision.remedy,
    )


def test_a_score_that_is_no_number_is_told() -> None:
    lost = made.concept(math.nan, 0.5, concept_id="lost", family_p_value=0.9)
    short = shortened(decided(*harmless(100), lost), 1, 5.0)
    assert "lost" in ids(short)
    assert short.left_out is not None
    assert math.isfinite(short.left_out.highest_score)


def test_whoever_asked_about_some_concepts_hears_about_each() -> None:
    decision = decided(*harmless(50), restricted_to=tuple(f"c{n:05}" for n in range(50)))
    assert shortened(decision, 3, 5.0) is decision


def test_a_decision_is_made_over_all_concepts_again_from_what_is_recorded() -> None:
    decision = decided(*harmless(1000))
    short = shortened(decision, 3, 5.0)
    assert decide(POLICY, short.evidence, now=made.NOW) == decision
    strict = replace(POLICY, defaults=replace(POLICY.defaults, block_score=0.5, min_degree=0.0))
    again = decide(strict, short.evidence, now=made.NOW)
    acted = [one for one in again.findings if one.verdict is not VerdictKind.ALLOW]
    assert len(acted) == 500, "the other policy acts on concepts that were not told"


def test_nothing_is_decided_over_evidence_that_cannot_be_read_in_full() -> None:
    short: Evidence = shortened(decided(*harmless(100)), 3, 5.0).evidence
    with pytest.raises(ValueError, match="packed concepts"):
        decide(POLICY, replace(short, packed=short.packed[:40]), now=made.NOW)
