"""What an audit found, what was decided and what was recorded, for tests of what comes after.

Every builder makes something sound, of one adapter and a library of one concept; a test names what
it cares about.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from loragate_server.audit.evidence import ConceptEvidence, CoverageEvidence, Evidence
from loragate_server.policy.decision import Decision, Finding, Mode, Reason, Remedy, VerdictKind
from loragate_server.record.verdict import Caller, Verdict

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)

_CONCEPT = ConceptEvidence(
    concept_id="cat",
    concept_name="Cat",
    category="character",
    severity="high",
    score=0.0,
    p_value=0.5,
    degree=50.0,
    error_change_by_time={"0.50": -0.1},
)
_ADAPTER = CoverageEvidence(
    sha256="a" * 64,
    size_bytes=1000,
    format="peft",
    denoiser_strength=1.0,
    text_encoder_strength=1.0,
    weight_tensors=8,
    mapped_tensors=8,
    matched_modules=4,
    unmapped=(),
)
_EVIDENCE = Evidence(
    adapters=(_ADAPTER,),
    concepts=(),
    layers=(),
    inconclusive=(),
    base_model="emoji-tiny",
    base_digest="b" * 64,
    library_digest="c" * 64,
    kernel_backend="reference",
    engine_version="1",
    neutral_count=32,
    stage_times_s={"response": 0.5},
)


def concept(score: float = 0.0, p_value: float = 0.5, **facts: Any) -> ConceptEvidence:
    """What was measured of a concept that was not learned."""
    return replace(_CONCEPT, score=score, p_value=p_value, **facts)


def adapter(sha256: str = "a" * 64, **facts: Any) -> CoverageEvidence:
    """An adapter that was understood in full."""
    return replace(_ADAPTER, sha256=sha256, **facts)


def evidence(*concepts: ConceptEvidence, **facts: Any) -> Evidence:
    """Of an audit that went well."""
    return replace(_EVIDENCE, **{"concepts": concepts, **facts})


def decision(
    kind: VerdictKind = VerdictKind.ALLOW,
    found: Evidence | None = None,
    *,
    codes: tuple[str, ...] = ("no_concept_learned",),
    **facts: Any,
) -> Decision:
    """A decision in force, with a finding for each concept of the evidence."""
    found = evidence() if found is None else found
    remedy = Remedy.NONE if kind is VerdictKind.ALLOW else Remedy.QUARANTINE
    made = Decision(
        verdict=kind,
        would_be_verdict=kind,
        mode=Mode.ENFORCE,
        remedy=remedy,
        reasons=tuple(Reason(code, "Why.") for code in codes),
        findings=tuple(Finding(one, kind, Remedy.NONE) for one in found.concepts),
        evidence=found,
        policy_digest="d" * 64,
        ttl_s=60.0,
    )
    return replace(made, **facts)


def as_answered(made: Decision) -> Decision:
    """What of a decision a cached verdict keeps: all that answers hold."""
    adapters = tuple(replace(one, sketches=()) for one in made.evidence.adapters)
    empty: dict[str, Any] = {"layers": (), "heat_map": None, "concepts": (), "packed": ""}
    kept = replace(made.evidence, adapters=adapters, **empty)
    return replace(made, evidence=kept)


def verdict(made: Decision | None = None, **facts: Any) -> Verdict:
    """A decision that was recorded, of a caller who said nothing of themselves."""
    recorded = Verdict("e" * 32, made or decision(), Caller(), NOW, NOW + timedelta(seconds=60), {})
    return replace(recorded, **facts)
