"""What decided about a concept, and what would have to be different for another result."""

from __future__ import annotations

import math

from loragate_server.policy.decision import Finding, Measured, MeasureKind, VerdictKind
from loragate_server.wording.wording import Wording


def what_would_change(wording: Wording, finding: Finding) -> str:
    """A sentence or two with the number that decided and the limit that it is held against.

    Args:
        wording: of the language.
        finding: the policy's view of the concept.

    Returns:
        "" where the record does not say what decided.
    """
    by = finding.decided_by
    if by is None or math.isnan(by.value):
        return ""
    value, limit = _number(wording, by, by.value), _number(wording, by, by.threshold)
    measure = wording(f"change.{by.kind.value}")
    side = "low" if by.kind in (MeasureKind.SCORE, MeasureKind.DEGREE) else "high"
    if finding.verdict is VerdictKind.ALLOW:
        return wording(f"change.missed_{side}", measure=measure, value=value, limit=limit)
    acted = wording(f"change.reached_{side}", measure=measure, value=value, limit=limit)
    if finding.verdict is VerdictKind.REVIEW:
        return wording("change.person", first=acted)
    return acted


def _number(wording: Wording, by: Measured, value: float) -> str:
    if by.kind is MeasureKind.DEGREE:
        return wording.decimal(value, 0)
    return wording.decimal(value) if by.kind is MeasureKind.SCORE else wording.p_value(value)
