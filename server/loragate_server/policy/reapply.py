"""Carries what overruled a recorded decision over to what another policy says about it.

A recorded verdict is what the policy said, and then what people and earlier decisions had said
about the same files. Another policy is compared with it fairly only when the same is done to both.
"""

from __future__ import annotations

from typing import Final

from loragate_server.policy.decision import Decision, VerdictKind
from loragate_server.policy.known import KNOWN_CODE
from loragate_server.policy.lineage import LINEAGE_CODES, LineageRules, with_lineage
from loragate_server.policy.overrule import overruled
from loragate_server.policy.review import APPROVED_CODE, REJECTED_CODE, subject_of

OVERRULING: Final = (APPROVED_CODE, REJECTED_CODE, KNOWN_CODE, *LINEAGE_CODES)
"""Codes of reasons that come from beside the evidence."""


def overruled_by(recorded: Decision) -> tuple[str, ...]:
    """Which of `OVERRULING` a recorded decision gives as reasons."""
    codes = {reason.code for reason in recorded.reasons}
    return tuple(code for code in OVERRULING if code in codes)


def reapplied(recorded: Decision, decided: Decision, rules: LineageRules) -> Decision:
    """What another policy decided, after what had overruled the recorded decision.

    A rejection blocks whatever the policy says. What was on record as blocked blocks unless the
    policy has the files on its allow list. What comes from a blocked adapter gets the verdict that
    the other policy has for it. An approval lets a REVIEW through that suspects no
    other concepts than the recorded decision did, for these are what people looked at.

    Args:
        recorded: as it was answered.
        decided: about the same evidence, by the other policy alone.
        rules: the other policy's, for what comes from blocked adapters.
    """
    codes = overruled_by(recorded)
    if REJECTED_CODE in codes:
        return _overrule(recorded, decided, REJECTED_CODE, VerdictKind.BLOCK)
    vouched = any(reason.code == "allow_listed" for reason in decided.reasons)
    if KNOWN_CODE in codes and not vouched:
        return _overrule(recorded, decided, KNOWN_CODE, VerdictKind.BLOCK)
    lineage = [reason for reason in recorded.reasons if reason.code in LINEAGE_CODES]
    decided = with_lineage(decided, lineage, rules)
    if APPROVED_CODE in codes and _looked_at(recorded, decided):
        return _overrule(recorded, decided, APPROVED_CODE, VerdictKind.ALLOW)
    return decided


def _overrule(recorded: Decision, decided: Decision, code: str, verdict: VerdictKind) -> Decision:
    reasons = [reason for reason in recorded.reasons if reason.code == code]
    return overruled(decided, verdict, reasons, decided.ttl_s)


def _looked_at(recorded: Decision, decided: Decision) -> bool:
    suspected = {
        finding.evidence.concept_id
        for finding in recorded.findings
        if finding.verdict is VerdictKind.REVIEW
    }
    subject = subject_of(decided)
    return subject is not None and suspected.issuperset(subject.concept_ids)
