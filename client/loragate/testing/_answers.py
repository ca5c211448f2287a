"""Builds the wire answers of the fake server."""

from __future__ import annotations

import hashlib
import time
import uuid

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import code_pb2, error_details_pb2, status_pb2

from loragate._status import DETAILS_KEY, DOMAIN
from loragate._wire import wire_name
from loragate.errors import CLASS_OF_REASON, AuditError
from loragate.reference import LOADERS
from loragate.results import Remedy, Severity, Verdict
from loragate.v1 import audit_pb2

_CODES: dict[str, grpc.StatusCode] = {
    "InvalidAdapter": grpc.StatusCode.INVALID_ARGUMENT,
    "InvalidRequest": grpc.StatusCode.INVALID_ARGUMENT,
    "NotFound": grpc.StatusCode.NOT_FOUND,
    "Exhausted": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "DeadlineExceeded": grpc.StatusCode.DEADLINE_EXCEEDED,
    "Cancelled": grpc.StatusCode.CANCELLED,
    "Unavailable": grpc.StatusCode.UNAVAILABLE,
    "Internal": grpc.StatusCode.INTERNAL,
    "Unauthenticated": grpc.StatusCode.UNAUTHENTICATED,
    "PermissionDenied": grpc.StatusCode.PERMISSION_DENIED,
}

_CODES_OF_REASONS: dict[str, grpc.StatusCode] = {
    "SHA256_MISMATCH": grpc.StatusCode.FAILED_PRECONDITION,
    "PATH_NOT_ALLOWED": grpc.StatusCode.PERMISSION_DENIED,
    "SOURCE_NOT_ENABLED": grpc.StatusCode.FAILED_PRECONDITION,
    "SOURCE_UNREADABLE": grpc.StatusCode.UNAVAILABLE,
    "CONCEPT_EXISTS": grpc.StatusCode.ALREADY_EXISTS,
    "DISK_FULL": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "LIBRARY_EMPTY": grpc.StatusCode.FAILED_PRECONDITION,
    "POLICY_INVALID": grpc.StatusCode.FAILED_PRECONDITION,
}
"""Where the status code is not the one of the error's class."""


def code_of(reason: str) -> grpc.StatusCode:
    """The status code that goes with a reason.

    Raises:
        ValueError: there is no such reason.
    """
    error: type[AuditError] | None = CLASS_OF_REASON.get(reason)
    if error is None:
        raise ValueError(f"{reason!r} is not an error reason; there are {sorted(CLASS_OF_REASON)}.")
    return _CODES_OF_REASONS.get(reason) or _CODES[error.__name__]


def trailing_metadata(
    reason: str,
    message: str,
    *,
    remedy: str,
    metadata: dict[str, str],
    violations: dict[str, str],
    retry_after_s: float | None,
) -> tuple[tuple[str, bytes], ...]:
    """The rich status of a failure, as it travels beside the status code."""
    status = status_pb2.Status(code=getattr(code_pb2, code_of(reason).name), message=message)
    info = error_details_pb2.ErrorInfo(
        reason=reason, domain=DOMAIN, metadata=metadata | ({"remedy": remedy} if remedy else {})
    )
    status.details.add().Pack(info)
    if violations:
        bad = error_details_pb2.BadRequest()
        for field, description in violations.items():
            bad.field_violations.add(field=field, description=description)
        status.details.add().Pack(bad)
    if retry_after_s is not None:
        delay = Duration()
        delay.FromNanoseconds(int(retry_after_s * 1e9))
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    return ((DETAILS_KEY, status.SerializeToString()),)


def key_of(reference: audit_pb2.AdapterReference) -> str:
    """What verdicts are scripted by: the path or URI, else the digest of the inline bytes."""
    source = reference.WhichOneof("source")
    if source == "inline_bytes":
        return hashlib.sha256(reference.inline_bytes).hexdigest()
    return reference.stored_sha256 or reference.path or reference.uri


def audited(reference: audit_pb2.AdapterReference, key: str, size: int) -> audit_pb2.AuditedAdapter:
    """The adapter as the answer names it. A place that is not read gets a digest of its name."""
    is_digest = len(key) == 64 and set(key) <= set("0123456789abcdef")
    named = reference.expected_sha256 or hashlib.sha256(key.encode()).hexdigest()
    strength = reference.denoiser_strength if reference.HasField("denoiser_strength") else 1.0
    return audit_pb2.AuditedAdapter(
        sha256=key if is_digest else named,
        size_bytes=size,
        format="fake",
        denoiser_strength=strength,
        text_encoder_strength=(
            reference.text_encoder_strength
            if reference.HasField("text_encoder_strength")
            else strength
        ),
        kind=reference.kind or audit_pb2.ADAPTER_KIND_LORA,
        coverage=audit_pb2.KeyCoverage(weight_tensors=2, mapped_tensors=2, matched_modules=1),
    )


def verdict_message(
    verdict: Verdict,
    adapters: list[audit_pb2.AuditedAdapter],
    request: audit_pb2.AuditRequest,
    concept: str,
) -> audit_pb2.Verdict:
    """A plausible recorded decision; every verdict but ALLOW has one finding."""
    kind = wire_name(verdict)
    clear = verdict is Verdict.ALLOW
    remedy = wire_name(Remedy.NONE if clear else Remedy.RETRAIN)
    digest = hashlib.sha256(b"fake").hexdigest()
    message = audit_pb2.Verdict(
        decision_id=uuid.uuid4().hex,
        verdict=kind,
        mode="MODE_ENFORCE",
        would_be_verdict=kind,
        remedy=remedy,
        adapters=adapters,
        base_model=request.base_model or "fake",
        digests=audit_pb2.Digests(base_model=digest, library=digest, policy=digest),
        engine_version="fake",
        kernel_backend="reference",
        stage_times=[audit_pb2.StageTime(stage="response", duration=Duration(nanos=5_000_000))],
        decided_at=Timestamp(seconds=int(time.time())),
        expires_at=Timestamp(seconds=int(time.time()) + 3600),
        dry_run=request.dry_run,
        binding=not request.dry_run and not request.concept_ids,
        restricted_to_concept_ids=request.concept_ids,
        loaders=LOADERS,
    )
    if not clear:
        message.reasons.add(code="concept_learned", message=f"The adapter has learned {concept}.")
        message.findings.add(
            concept_id=concept,
            concept_name=concept,
            category="test",
            severity=wire_name(Severity.HIGH),
            score=7.5,
            p_value=0.001,
            degree=80.0,
            verdict=kind,
            remedy=remedy,
        )
    return message
