"""`Decision`: what the policy makes of the evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from loragate_server.audit.evidence import ConceptEvidence, Evidence


class VerdictKind(StrEnum):
    """What the caller has to do. Order of gravity: ALLOW, REVIEW, INCONCLUSIVE, BLOCK."""

    ALLOW = "ALLOW"
    REVIEW = "REVIEW"
    INCONCLUSIVE = "INCONCLUSIVE"
    BLOCK = "BLOCK"


GRAVITY: Final[Mapping[VerdictKind, int]] = {kind: rank for rank, kind in enumerate(VerdictKind)}


class Mode(StrEnum):
    """Whether a verdict binds (`ENFORCE`) or is only recorded (`PILOT`)."""

    ENFORCE = "ENFORCE"
    PILOT = "PILOT"


class Remedy(StrEnum):
    """What the operator should do, in order of gravity."""

    NONE = "NONE"
    RETRAIN = "RETRAIN"
    REPLACE_DATA = "REPLACE_DATA"
    QUARANTINE = "QUARANTINE"
    WITHDRAW_AND_CALL_LEGAL = "WITHDRAW_AND_CALL_LEGAL"


NOTES = frozenset({"pilot_mode", "allow_list_lapsed", "allow_list_config", "uncalibrated"})
"""Codes of reasons that stand beside a verdict and do not make it graver or milder."""


@dataclass(frozen=True)
class Reason:
    """One reason of a decision: a stable code and a sentence for people.

    Attributes:
        plain: the sentence without measured numbers; empty where it holds none.
    """

    code: str
    message: str
    plain: str = ""


class MeasureKind(StrEnum):
    """What is compared with a limit."""

    LIBRARY_P_VALUE = "LIBRARY_P_VALUE"
    OWN_P_VALUE = "OWN_P_VALUE"
    SCORE = "SCORE"
    DEGREE = "DEGREE"


@dataclass(frozen=True)
class Measured:
    """One measure of a concept beside the limit that it is compared with.

    Attributes:
        value: of a p-value over the library, the one over all concepts (family or Holm-adjusted).
        threshold: of p-values the highest, of a score or degree the lowest that reaches it.
    """

    kind: MeasureKind
    value: float
    threshold: float

    @property
    def reached(self) -> bool:
        """Whether it is on the side of the limit where the policy acts; not for no number."""
        if self.kind in (MeasureKind.SCORE, MeasureKind.DEGREE):
            return self.value >= self.threshold
        return self.value <= self.threshold


@dataclass(frozen=True)
class Finding:
    """The policy's view of one concept.

    Attributes:
        decided_by: what reached a limit, or the limit that it would reach first; None where there
            is no limit or no number, and in decisions from before it was kept.
        library_p_value: over all concepts of the library; None in those decisions.
    """

    evidence: ConceptEvidence
    verdict: VerdictKind
    remedy: Remedy
    decided_by: Measured | None = None
    library_p_value: float | None = None


@dataclass(frozen=True)
class LeftOut:
    """Concepts that were measured and let through, and are not told one by one.

    Attributes:
        count: how many.
        highest_score: among them.
        most, above: by which they were chosen, see `policy.shortened`.
    """

    count: int
    highest_score: float
    most: int
    above: float


@dataclass(frozen=True)
class Decision:
    """A decision that is not recorded yet.

    Attributes:
        verdict: what binds the caller; ALLOW in pilot mode.
        would_be_verdict: what the policy decided; equal to `verdict` when enforcing.
        findings: highest score first.
        left_out: what is known of further findings; None where `findings` are all of them.
    """

    verdict: VerdictKind
    would_be_verdict: VerdictKind
    mode: Mode
    remedy: Remedy
    reasons: tuple[Reason, ...]
    findings: tuple[Finding, ...]
    evidence: Evidence
    policy_digest: str
    ttl_s: float
    left_out: LeftOut | None = field(default=None, metadata={"recorded": "where set"})
