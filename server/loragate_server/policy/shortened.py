"""Which findings of a decision are told one by one, where a library has thousands of concepts.

The policy has decided over all of them before; nothing is decided here, and what was left out can
be had again to the last bit (`audit.packed`).
"""

from __future__ import annotations

import math
from dataclasses import replace

from loragate_server.audit.evidence import ConceptEvidence
from loragate_server.audit.packed import without
from loragate_server.policy.decision import Decision, Finding, LeftOut, VerdictKind


def shortened(decision: Decision, most: int, above: float) -> Decision:
    """The decision with the findings that anybody may want to see, and how many there were more.

    Told are all findings that the policy acts on, those whose score reaches a floor or is not a
    number, and the highest ones up to a number. Of a question about some concepts all are told: who
    asks about a concept hears about it.

    Args:
        decision: with a finding for each concept, highest score first.
        most: findings that are let through and told whatever they score; at least one.
        above: the score from which on all are told.
    """
    findings = decision.findings
    if len(findings) <= most or decision.evidence.restricted_to:
        return decision
    told = tuple(
        one for place, one in enumerate(findings) if place < most or _stands_out(one, above)
    )
    if len(told) == len(findings):
        return decision
    ids = {one.evidence.concept_id for one in told}

    def is_told(concept: ConceptEvidence) -> bool:
        return concept.concept_id in ids

    # by falling score: the first that is left out is the highest
    highest = next(one for one in findings if one.evidence.concept_id not in ids)
    return replace(
        decision,
        findings=told,
        evidence=without(decision.evidence, is_told),
        left_out=LeftOut(len(findings) - len(told), highest.evidence.score, most, above),
    )


def _stands_out(finding: Finding, above: float) -> bool:
    score = finding.evidence.score
    return finding.verdict is not VerdictKind.ALLOW or math.isnan(score) or score >= above
