"""What is on record as blocked is let through by no company.

A decision blocks *uses*: some files, each at a strength, active together. A use that was blocked
blocks every larger set that holds its files, at whatever strengths, until a later decision allows
exactly the use that the larger set makes of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from loragate_server.audit.evidence import UseEvidence
from loragate_server.policy.decision import NOTES, Decision, Reason, VerdictKind
from loragate_server.policy.overrule import overruled
from loragate_server.policy.review import ReviewedAdapter
from loragate_server.policy.sentences import members_of, use_of

KNOWN_CODE = "known_bad"
COPY_CODE = "copy_of_blocked"
PART_CODE = "part_of_blocked"
UNSEEN_CODE = "sums_not_compared"
LINEAGE_CODES = (COPY_CODE, PART_CODE, UNSEEN_CODE)

Members = tuple[ReviewedAdapter, ...]
"""Files as they are used together, sorted."""


@dataclass(frozen=True)
class KnownUse:
    """What a recorded decision said about a use.

    Attributes:
        decided_at: timezone-aware.
        blocked: else a decision that allowed it after one that had blocked it.
    """

    decision_id: str
    decided_at: datetime
    base_digest: str
    members: Members
    blocked: bool

    @property
    def sha256s(self) -> tuple[str, ...]:
        """Digests of the files, sorted; one that is used twice stands twice."""
        return tuple(sorted(one.sha256 for one in self.members))


def judged_uses(decision: Decision) -> tuple[tuple[Members, bool], ...]:
    """The uses that a binding decision speaks about, and whether it blocks them.

    Blocked are those in which a concept was found to be learned. Allowed is what was asked about
    as a whole, if no concept reached a threshold: what the allow list or a person lets through
    has not been found harmless. What comes from a blocked adapter and shows nothing itself is
    judged by that one and says nothing against it, or two copies would block each other for good.
    """
    evidence, findings = decision.evidence, decision.findings
    learned = [one.evidence for one in findings if one.verdict is VerdictKind.BLOCK]
    blocked = decision.would_be_verdict is VerdictKind.BLOCK and bool(learned)
    if blocked:
        uses = [use_of(evidence, one) for one in learned]
    elif _harmless(decision):
        whole = [one for one in evidence.uses if len(one.adapters) == len(evidence.adapters)]
        uses = whole or [use_of(evidence, findings[0].evidence)]
    else:
        return ()
    return tuple(dict.fromkeys((_members(decision, use), blocked) for use in uses if use.adapters))


def apply_known(decision: Decision, known: Sequence[KnownUse]) -> Decision:
    """The decision after what is on record about smaller sets of the same files.

    Args:
        decision: as the policy made it.
        known: blocked uses of some of its files; see `record.known_book`.
    """
    vouched = any(reason.code == "allow_listed" for reason in decision.reasons)
    if not known or vouched or decision.would_be_verdict is VerdictKind.BLOCK:
        return decision
    reasons = [Reason(KNOWN_CODE, _sentence(one)) for one in known]
    return overruled(decision, VerdictKind.BLOCK, reasons, decision.ttl_s)


def as_used(members: Iterable[ReviewedAdapter]) -> str:
    """For example "0123456789ab at strength 1 and 56789abcdef0 at strength 0.5"."""
    return " and ".join(
        f"{one.sha256[:12]} at strength {one.denoiser_strength:g}" for one in members
    )


def _harmless(decision: Decision) -> bool:
    findings = decision.findings
    if not findings or any(one.verdict is not VerdictKind.ALLOW for one in findings):
        return False
    codes = {reason.code for reason in decision.reasons} - NOTES
    of_lineage = bool(codes) and codes <= set(LINEAGE_CODES)
    return of_lineage or decision.would_be_verdict is VerdictKind.ALLOW


def _members(decision: Decision, use: UseEvidence) -> Members:
    evidence = decision.evidence
    return tuple(
        sorted(
            ReviewedAdapter(
                adapter.sha256,
                adapter.config_sha256,
                used.denoiser_strength,
                used.text_encoder_strength,
            )
            for adapter, used in zip(members_of(evidence, use), use.adapters, strict=True)
        )
    )


def _sentence(known: KnownUse) -> str:
    return (
        f"On record as blocked: {as_used(known.members)} (decision {known.decision_id} of "
        f"{known.decided_at:%Y-%m-%d}). Other adapters beside it change nothing; to have it judged "
        "anew, ask about it without them, at the strength that it is wanted at."
    )
