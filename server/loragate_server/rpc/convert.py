"""Between wire messages and the server's own nouns. Nothing is decided here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import TypedDict

from loragate.v1 import audit_pb2 as wire
from loragate_server.adapter.reference import (
    MAX_NAME_LETTERS,
    AdapterReference,
    Kind,
    Strength,
)
from loragate_server.audit.evidence import CoverageEvidence, Evidence
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.gate.request import GateRequest
from loragate_server.policy.decision import (
    GRAVITY,
    Decision,
    Finding,
    Measured,
    Reason,
    VerdictKind,
)
from loragate_server.policy.reasons import told_without_numbers
from loragate_server.policy.sentences import members_of, use_of, use_words
from loragate_server.record.verdict import Caller, Verdict
from loragate_server.rpc.access import HOST, IDENTITY

MAX_CALLER_LETTERS = 256
MAX_CONCEPT_IDS = 1000
MAX_ADAPTERS = 1000
"""Counted before they are read; the policy allows far fewer."""
SHOWN_UNMAPPED = 20


def audit_request(message: wire.AuditRequest) -> GateRequest:
    """The question that an `AuditRequest` asks.

    Raises:
        NoDecisionError: REQUEST_INVALID where a field is too long.
    """
    if (count := len(message.adapters)) > MAX_ADAPTERS:
        raise NoDecisionError(
            ErrorReason.REQUEST_INVALID,
            f"The request names {count} adapters.",
            remedy=f"Name at most {MAX_ADAPTERS}, and no more than limits.max_adapters allows.",
            metadata={"field": "adapters"},
        )
    return GateRequest(
        adapters=tuple(adapter_reference(each) for each in message.adapters),
        base_model=message.base_model,
        caller=caller(message.caller),
        dry_run=message.dry_run,
        concept_ids=_concept_ids(message.concept_ids),
        peer=HOST.get(),
    )


def upload_request(header: wire.UploadHeader) -> GateRequest:
    """The question that an upload's header asks.

    Raises:
        NoDecisionError: REQUEST_INVALID where a field is too long.
    """
    return GateRequest(
        adapters=(_uploaded(header),),
        base_model=header.base_model,
        caller=caller(header.caller),
        dry_run=header.dry_run,
        concept_ids=_concept_ids(header.concept_ids),
        peer=HOST.get(),
    )


def _uploaded(header: wire.UploadHeader) -> AdapterReference:
    reference = adapter_reference(header.adapter)
    if reference.declared_name:
        return reference
    return replace(reference, declared_name=header.file_name[-MAX_NAME_LETTERS:])


def adapter_reference(message: wire.AdapterReference) -> AdapterReference:
    """An adapter; strengths that are not set are 1, or for text encoders the denoiser's.

    Raises:
        NoDecisionError: REQUEST_INVALID for a kind that this server does not know, and for a name
            that is too long.
    """
    source = message.WhichOneof("source")
    _require_short("adapters.declared_name", message.declared_name, MAX_NAME_LETTERS)
    denoiser = message.denoiser_strength if message.HasField("denoiser_strength") else 1.0
    text = message.text_encoder_strength
    return AdapterReference(
        path=message.path if source == "path" else None,
        uri=message.uri if source == "uri" else None,
        inline_bytes=message.inline_bytes if source == "inline_bytes" else None,
        stored_sha256=message.stored_sha256 if source == "stored_sha256" else None,
        weight_name=message.weight_name or None,
        revision=message.revision or None,
        expected_sha256=message.expected_sha256 or None,
        strength=Strength(
            denoiser, text if message.HasField("text_encoder_strength") else denoiser
        ),
        kind=_kind(message.kind),
        declared_name=message.declared_name,
    )


_KINDS: Mapping[int, Kind] = {
    wire.ADAPTER_KIND_UNSPECIFIED: "lora",
    wire.ADAPTER_KIND_LORA: "lora",
    wire.ADAPTER_KIND_EMBEDDING: "embedding",
}


def _kind(value: wire.AdapterKind) -> Kind:
    if value in _KINDS:
        return _KINDS[value]
    raise NoDecisionError(
        ErrorReason.REQUEST_INVALID,
        f"There is no kind of adapter {value}.",
        remedy="Use a value of AdapterKind that this server knows, or update the server.",
        metadata={"field": "adapters.kind"},
    )


def caller(message: wire.CallerContext) -> Caller:
    """Who says to ask, and who was found to.

    Raises:
        NoDecisionError: REQUEST_INVALID for text that the decision log should not hold, and for
            who says to be a scan of a catalogue.
    """
    for field in ("service", "tenant", "request_id"):
        _require_short(f"caller.{field}", getattr(message, field), MAX_CALLER_LETTERS)
    asking = Caller(
        service=message.service,
        tenant=message.tenant,
        request_id=message.request_id,
        identity=IDENTITY.get(),
    )
    if asking.is_a_scan:
        raise NoDecisionError(
            ErrorReason.REQUEST_INVALID,
            f"caller.service {message.service} with such a request_id stands for a scan.",
            remedy="Use another caller.service or caller.request_id.",
            metadata={"field": "caller.request_id"},
        )
    return asking


def _require_short(field: str, text: str, most: int) -> None:
    if len(text) > most:
        raise NoDecisionError(
            ErrorReason.REQUEST_INVALID,
            f"{field} has {len(text)} letters.",
            remedy=f"Use at most {most}.",
            metadata={"field": field},
        )


class Filters(TypedDict):
    """What a list is restricted to, as `Records.list` takes it."""

    adapter_sha256: str
    verdict: VerdictKind | None
    service: str
    base_model: str
    since: datetime | None
    until: datetime | None


def filters_of(request: wire.ListAuditsRequest) -> Filters:
    """What a list is restricted to.

    Raises:
        NoDecisionError: REQUEST_INVALID for a number that is no verdict, and for no moment.
    """
    return Filters(
        verdict=_verdict_filter(request.verdict),
        adapter_sha256=request.adapter_sha256,
        service=request.service,
        base_model=request.base_model,
        since=_moment(request, "decided_since"),
        until=_moment(request, "decided_before"),
    )


def _verdict_filter(value: wire.VerdictKind) -> VerdictKind | None:
    if value == wire.VERDICT_KIND_UNSPECIFIED:
        return None
    try:
        return VerdictKind(wire.VerdictKind.Name(value).removeprefix("VERDICT_KIND_"))
    except ValueError:
        raise NoDecisionError(
            ErrorReason.REQUEST_INVALID,
            f"There is no verdict {value}.",
            remedy="Use a value of VerdictKind, or none for all verdicts.",
            metadata={"field": "verdict"},
        ) from None


def _moment(request: wire.ListAuditsRequest, field: str) -> datetime | None:
    if not request.HasField(field):
        return None
    try:
        moment: datetime = getattr(request, field).ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise NoDecisionError(
            ErrorReason.REQUEST_INVALID,
            f"{field} is no moment of the years 1 to 9999.",
            remedy="Send a valid google.protobuf.Timestamp, or none.",
            metadata={"field": field},
        ) from None
    return moment


def verdict_message(verdict: Verdict, *, scores: bool) -> wire.Verdict:
    """A recorded decision as it goes out.

    Args:
        verdict: the decision.
        scores: whether the caller may see measured numbers. Else they are left out, findings come
            gravest first, and sentences say no number. Where a decision tells the highest findings
            alone, those that were let through are left out as well: which they are is a measure.
    """
    decision, evidence = verdict.decision, verdict.decision.evidence
    findings = decision.findings
    if not scores:
        findings = tuple(sorted(_unmeasured(decision), key=_by_gravity))
    message = wire.Verdict(
        decision_id=verdict.decision_id,
        verdict=_verdict_kind(decision.verdict),
        mode=f"MODE_{decision.mode}",
        would_be_verdict=_verdict_kind(decision.would_be_verdict),
        remedy=_remedy(decision.remedy),
        reasons=[_reason(each, scores=scores) for each in decision.reasons],
        findings=[_finding(each, evidence, scores=scores) for each in findings],
        adapters=[_audited_adapter(each, name) for each, name in verdict.named_adapters],
        base_model=evidence.base_model,
        digests=wire.Digests(
            base_model=evidence.base_digest,
            library=evidence.library_digest,
            policy=decision.policy_digest,
        ),
        engine_version=evidence.engine_version,
        kernel_backend=evidence.kernel_backend,
        cached=verdict.cached,
        dry_run=verdict.dry_run,
        binding=verdict.binding,
        restricted_to_concept_ids=evidence.restricted_to,
        loaders=evidence.loaders,
        dsse_envelope=verdict.envelope,
    )
    for stage, seconds in verdict.stage_times_s.items():
        time = message.stage_times.add(stage=stage)
        time.duration.FromNanoseconds(round(seconds * 1e9))
    if decision.left_out is not None:
        message.left_out.count = decision.left_out.count + len(decision.findings) - len(findings)
        if scores:
            message.left_out.highest_score = decision.left_out.highest_score
    message.decided_at.FromDatetime(verdict.decided_at)
    message.expires_at.FromDatetime(verdict.expires_at)
    return message


def _unmeasured(decision: Decision) -> Iterable[Finding]:
    """The findings of which being told says nothing about a score."""
    all_told = decision.left_out is None
    return (one for one in decision.findings if all_told or one.verdict is not VerdictKind.ALLOW)


def _concept_ids(ids: Iterable[str]) -> tuple[str, ...]:
    found = tuple(ids)
    if len(found) > MAX_CONCEPT_IDS:
        raise NoDecisionError(
            ErrorReason.REQUEST_INVALID,
            f"The request names {len(found)} concepts.",
            remedy=f"Name at most {MAX_CONCEPT_IDS}, or none for the whole library.",
            metadata={"field": "concept_ids"},
        )
    return found


def _reason(reason: Reason, *, scores: bool) -> wire.Reason:
    message = reason.message if scores else told_without_numbers(reason)
    return wire.Reason(code=reason.code, message=message)


def _finding(finding: Finding, evidence: Evidence, *, scores: bool) -> wire.Finding:
    concept = finding.evidence
    # Which use is the gravest is itself a measure of a concept that was not found.
    told = scores or finding.verdict is not VerdictKind.ALLOW
    use = use_of(evidence, concept)
    return wire.Finding(
        concept_id=concept.concept_id,
        concept_name=concept.concept_name,
        category=concept.category,
        severity=severity_name(concept.severity),
        score=concept.score if scores else None,
        p_value=concept.p_value if scores else None,
        degree=concept.degree if scores else None,
        decided_by=_measured(finding.decided_by) if scores else None,
        library_p_value=finding.library_p_value if scores else None,
        verdict=_verdict_kind(finding.verdict),
        remedy=_remedy(finding.remedy),
        adapter_sha256s=[one.sha256 for one in members_of(evidence, use)] if told else (),
        use=use_words(evidence, use).rstrip(",") if told else "",
        measures_withheld=not scores,
    )


def _measured(measured: Measured | None) -> wire.Measured | None:
    if measured is None:
        return None
    return wire.Measured(
        kind=f"MEASURE_KIND_{measured.kind}", value=measured.value, threshold=measured.threshold
    )


def _by_gravity(finding: Finding) -> tuple[int, str]:
    return -GRAVITY[finding.verdict], finding.evidence.concept_id


def _audited_adapter(coverage: CoverageEvidence, name: str) -> wire.AuditedAdapter:
    return wire.AuditedAdapter(
        sha256=coverage.sha256,
        size_bytes=coverage.size_bytes,
        format=coverage.format,
        denoiser_strength=coverage.denoiser_strength,
        text_encoder_strength=coverage.text_encoder_strength,
        kind=f"ADAPTER_KIND_{coverage.kind.upper()}",
        coverage=wire.KeyCoverage(
            weight_tensors=coverage.weight_tensors,
            mapped_tensors=coverage.mapped_tensors,
            matched_modules=coverage.matched_modules,
            unmapped=coverage.unmapped[:SHOWN_UNMAPPED],
        ),
        weights_sha256=coverage.weights_sha256,
        same_weights_as=coverage.same_weights_as,
        declared_name=name,
    )


def severity_name(severity: str) -> str:
    """The wire's name of a severity, "low" to "critical"."""
    return f"SEVERITY_{severity.upper()}"


def _verdict_kind(kind: VerdictKind) -> str:
    return f"VERDICT_KIND_{kind}"


def _remedy(remedy: str) -> str:
    return f"REMEDY_{remedy}"
