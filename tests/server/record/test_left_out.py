"""What a record says of concepts that are not told one by one, and what pruning leaves of it."""

from __future__ import annotations

import json

from loragate_server.audit.packed import whole
from loragate_server.policy.decision import Decision, VerdictKind
from loragate_server.policy.shortened import shortened
from loragate_server.record.codec import encode, parse_verdict, to_json
from loragate_server.record.retention.rows import without_evidence
from testkit import evidence as made


def decision(count: int) -> Decision:
    concepts = [made.concept(place / 10, concept_id=f"c{place}") for place in range(count)]
    kept = made.decision(VerdictKind.ALLOW, made.evidence(*concepts))
    return shortened(
        Decision(**{**vars(kept), "findings": tuple(reversed(kept.findings))}), 2, 100.0
    )


def test_a_record_of_which_nothing_is_left_out_has_no_field_more_than_before() -> None:
    payload = encode(made.verdict(decision(2)))
    assert "left_out" not in payload["decision"]
    assert "packed" not in payload["decision"]["evidence"]


def test_what_is_left_out_survives_being_written_and_read() -> None:
    verdict = made.verdict(decision(9))
    again = parse_verdict(to_json(encode(verdict)))
    assert again == verdict
    assert again.decision.left_out is not None
    assert again.decision.left_out.count == 7
    assert len(whole(again.decision.evidence).concepts) == 9


def test_pruning_takes_the_packed_numbers_as_well() -> None:
    payload = encode(made.verdict(decision(9)))
    thin = without_evidence(json.loads(to_json(payload)))
    assert "packed" not in thin["decision"]["evidence"]
    assert "left_out" not in thin["decision"]
    again = parse_verdict(to_json(thin))
    assert again.decision.findings == ()
    assert whole(again.decision.evidence).concepts == ()
