"""A verdict as a row of a file: the same facts for a spreadsheet and for a program."""

from __future__ import annotations

import math
from typing import Any

from loragate_server.policy.decision import VerdictKind
from loragate_server.record.verdict import Verdict

COLUMNS = (
    "decision_id",
    "decided_at",
    "verdict",
    "answered",
    "mode",
    "dry_run",
    "adapters",
    "names",
    "base_model",
    "service",
    "tenant",
    "concepts",
    "severities",
    "degrees",
    "reasons",
    "remedy",
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What spreadsheets may take for the beginning of a formula."""


def values(verdict: Verdict) -> dict[str, Any]:
    """The facts under the names of `COLUMNS`; those of several things are lists."""
    decision = verdict.decision
    acted = [one for one in decision.findings if one.verdict is not VerdictKind.ALLOW]
    return {
        "decision_id": verdict.decision_id,
        "decided_at": verdict.decided_at.isoformat(),
        "verdict": decision.would_be_verdict.value,
        "answered": decision.verdict.value,
        "mode": decision.mode.value,
        "dry_run": verdict.dry_run,
        "adapters": [adapter.sha256 for adapter, _ in verdict.named_adapters],
        "names": [name for _, name in verdict.named_adapters if name],
        "base_model": decision.evidence.base_model,
        "service": verdict.caller.service,
        "tenant": verdict.caller.tenant,
        "concepts": [one.evidence.concept_id for one in acted],
        "severities": [one.evidence.severity for one in acted],
        "degrees": [_number(one.evidence.degree) for one in acted],
        "reasons": [one.code for one in decision.reasons],
        "remedy": decision.remedy.value,
    }


def cells(verdict: Verdict) -> tuple[str, ...]:
    """The same as text; what could begin a formula gets a ' before it, as spreadsheets have it."""
    found = values(verdict)
    return tuple(_cell(found[name]) for name in COLUMNS)


def _cell(value: object) -> str:
    if isinstance(value, list):
        text = " ".join("" if one is None else str(one) for one in value)
    else:
        text = str(value).lower() if isinstance(value, bool) else str(value)
    # Spreadsheets also look behind spaces and signs that nobody sees.
    bare = text.lstrip(" \0\N{ZERO WIDTH NO-BREAK SPACE}\N{NO-BREAK SPACE}")
    return f"'{text}" if bare.startswith(_FORMULA) or text.startswith(_FORMULA) else text


def _number(value: float) -> float | None:
    return round(value, 3) if math.isfinite(value) else None
