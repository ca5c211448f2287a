"""Changes a decision by what is known beside the evidence: reviews, and earlier decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from loragate_server.policy.decision import Decision, Mode, Reason, Remedy, VerdictKind


def overruled(
    decision: Decision, verdict: VerdictKind, reasons: Sequence[Reason], ttl_s: float
) -> Decision:
    """The decision with another verdict, and why; in pilot mode it goes on to bind nobody.

    Args:
        decision: as the policy made it.
        verdict: instead of its own.
        reasons: come before those of the decision.
        ttl_s: seconds for which it holds.
    """
    pilot = decision.mode is Mode.PILOT
    remedy = decision.remedy
    if verdict is VerdictKind.ALLOW:
        remedy = Remedy.NONE
    elif remedy is Remedy.NONE:
        remedy = Remedy.QUARANTINE
    kept = [reason for reason in decision.reasons if reason.code != "no_concept_learned"]
    if pilot:
        kept = [reason for reason in kept if reason.code != "pilot_mode"]
        kept.append(
            Reason("pilot_mode", f"The policy only observes; enforcing, it says {verdict.value}.")
        )
    return replace(
        decision,
        verdict=VerdictKind.ALLOW if pilot else verdict,
        would_be_verdict=verdict,
        remedy=remedy,
        reasons=(*reasons, *kept),
        ttl_s=ttl_s,
    )
