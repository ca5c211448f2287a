"""`Row`: a recorded verdict as one line of a table."""

from __future__ import annotations

from dataclasses import dataclass

from loragate_server.policy.decision import Decision, Mode, VerdictKind
from loragate_server.record.verdict import Verdict
from loragate_server.wording.printable import printable
from loragate_server.wording.wording import Wording

DIGITS_SHOWN = 12
MOST_SUSPECTS = 3
_NAME_IN_ROW = 80


@dataclass(frozen=True)
class Row:
    """One verdict, in words.

    Attributes:
        verdict: what the policy decided, also where it only observed.
        adapters: first digits of the digests, and what the caller called them.
        suspects: concepts that the policy acts on, gravest first; `more` are not named.
        marks: what else has to be known, such as that it was a pilot.
    """

    decision_id: str
    decided_at: str
    machine_time: str
    verdict: str
    verdict_words: str
    adapters: tuple[tuple[str, str], ...]
    suspects: tuple[str, ...]
    more: int
    base_model: str
    service: str
    tenant: str
    marks: tuple[str, ...]


def row(wording: Wording, verdict: Verdict) -> Row:
    """A verdict as a line of a table."""
    decision = verdict.decision
    suspects = _suspects(wording, decision)
    kind = decision.would_be_verdict.value
    return Row(
        decision_id=verdict.decision_id,
        decided_at=wording.short_moment(verdict.decided_at),
        machine_time=verdict.decided_at.isoformat(timespec="seconds"),
        verdict=kind,
        verdict_words=wording(f"verdict.{kind}"),
        adapters=_adapters(verdict),
        suspects=suspects[:MOST_SUSPECTS],
        more=max(0, len(suspects) - MOST_SUSPECTS),
        base_model=printable(decision.evidence.base_model, _NAME_IN_ROW),
        service=printable(verdict.caller.service, _NAME_IN_ROW),
        tenant=printable(verdict.caller.tenant, _NAME_IN_ROW),
        marks=_marks(wording, verdict),
    )


def _adapters(verdict: Verdict) -> tuple[tuple[str, str], ...]:
    """The first digits of each adapter, and how the caller called it; "" where he did not."""
    return tuple(
        (printable(adapter.sha256[:DIGITS_SHOWN]), printable(name, _NAME_IN_ROW))
        for adapter, name in verdict.named_adapters
    )


def _suspects(wording: Wording, decision: Decision) -> tuple[str, ...]:
    gravity = list(VerdictKind)
    acted = [one for one in decision.findings if one.verdict is not VerdictKind.ALLOW]
    acted.sort(key=lambda finding: gravity.index(finding.verdict), reverse=True)
    return tuple(
        wording(
            "row.suspect",
            concept=printable(concept.concept_name or concept.concept_id, _NAME_IN_ROW),
            severity=wording.name("severity", concept.severity),
        )
        for concept in (finding.evidence for finding in acted)
    )


def _marks(wording: Wording, verdict: Verdict) -> tuple[str, ...]:
    pilot = verdict.decision.mode is Mode.PILOT
    restricted = bool(verdict.decision.evidence.restricted_to)
    marks = (
        ("row.pilot", pilot),
        ("row.dry_run", verdict.dry_run),
        ("row.restricted", restricted),
    )
    return tuple(wording(key) for key, holds in marks if holds)
