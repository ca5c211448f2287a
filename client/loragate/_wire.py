"""Translates between the SDK's dataclasses and the wire types. The only module that does."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from typing import Any, Literal, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from loragate.listing import ListOptions
from loragate.reference import AdapterKind, AdapterReference
from loragate.results import (
    AuditedAdapter,
    AuditResult,
    Concept,
    ConceptRole,
    Digests,
    Finding,
    KeyCoverage,
    LeftOut,
    Measured,
    MeasureKind,
    Mode,
    Progress,
    Reason,
    Remedy,
    Severity,
    Verdict,
)
from loragate.v1 import audit_pb2, concept_pb2

CHUNK_BYTES = 512 * 1024
"""Bytes per message of an upload; between 256 KiB and 1 MiB throughput is best."""

DataPlace = Literal["inline", "digest", "apart"]
"""Bytes at hand go into the message, or are named by their digest, or travel apart from it."""

_E = TypeVar("_E", bound=StrEnum)


def wire_name(member: StrEnum) -> str:
    """Name on the wire of an enum member: `Severity.LOW` is "SEVERITY_LOW"."""
    kind = "VerdictKind" if isinstance(member, Verdict) else type(member).__name__
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind).upper() + "_" + member.name


def _member(wrapper: Any, number: int, kind: type[_E], unknown: _E) -> _E:
    """The member for a number on the wire; `unknown` for 0 and for what this SDK does not know."""
    member: _E = _members(wrapper, kind).get(number, unknown)
    return member


def _kind(number: int) -> AdapterKind:
    """What a file was audited as; a server that does not say knows of LoRAs alone.

    Raises:
        ValueError: it is something of which this SDK does not know what it is.
    """
    known = _members(audit_pb2.AdapterKind, AdapterKind)
    kind: AdapterKind | None = known.get(number or audit_pb2.ADAPTER_KIND_LORA)
    if kind is None:
        raise ValueError(f"an adapter was audited as kind {number}, which is not known here")
    return kind


@cache
def _members(wrapper: Any, kind: type[_E]) -> dict[int, _E]:
    """The members by their numbers on the wire: an answer holds dozens of them."""
    numbers = dict(wrapper.items())
    return {numbers[name]: member for member in kind if (name := wire_name(member)) in numbers}


def _verdict(number: int) -> Verdict:
    return _member(audit_pb2.VerdictKind, number, Verdict, Verdict.BLOCK)


def _remedy(number: int) -> Remedy:
    return _member(audit_pb2.Remedy, number, Remedy, Remedy.NONE)


def _time(stamp: Timestamp) -> datetime:
    return stamp.ToDatetime(tzinfo=UTC)


def result_from(message: audit_pb2.Verdict) -> AuditResult:
    """Reads a recorded decision.

    Raises:
        ValueError, OverflowError: it holds a time that is none.
    """
    return AuditResult(
        verdict=_verdict(message.verdict),
        decision_id=message.decision_id,
        mode=_member(audit_pb2.Mode, message.mode, Mode, Mode.ENFORCE),
        would_be_verdict=_verdict(message.would_be_verdict),
        remedy=_remedy(message.remedy),
        reasons=tuple(Reason(reason.code, reason.message) for reason in message.reasons),
        findings=tuple(_finding(finding) for finding in message.findings),
        adapters=tuple(_adapter(adapter) for adapter in message.adapters),
        base_model=message.base_model,
        digests=Digests(
            message.digests.base_model, message.digests.library, message.digests.policy
        ),
        engine_version=message.engine_version,
        kernel_backend=message.kernel_backend,
        stage_times_s={
            time.stage: time.duration.ToTimedelta().total_seconds() for time in message.stage_times
        },
        decided_at=_time(message.decided_at) if message.HasField("decided_at") else None,
        expires_at=_time(message.expires_at) if message.HasField("expires_at") else None,
        cached=message.cached,
        dry_run=message.dry_run,
        binding=message.binding and not message.dry_run and not message.restricted_to_concept_ids,
        restricted_to=tuple(message.restricted_to_concept_ids),
        loaders=tuple(message.loaders),
        signed=message.dsse_envelope,
        left_out=_left_out(message.left_out) if message.HasField("left_out") else None,
    )


def _finding(message: audit_pb2.Finding) -> Finding:
    return Finding(
        concept_id=message.concept_id,
        concept_name=message.concept_name,
        category=message.category,
        severity=_member(audit_pb2.Severity, message.severity, Severity, Severity.CRITICAL),
        score=message.score,
        p_value=message.p_value,
        degree=message.degree,
        verdict=_verdict(message.verdict),
        remedy=_remedy(message.remedy),
        adapter_sha256s=tuple(message.adapter_sha256s),
        use=message.use,
        measures_withheld=message.measures_withheld,
        decided_by=_measured(message.decided_by) if message.HasField("decided_by") else None,
        library_p_value=message.library_p_value if message.HasField("library_p_value") else None,
    )


def _left_out(message: audit_pb2.FindingsLeftOut) -> LeftOut:
    highest = message.highest_score if message.HasField("highest_score") else None
    return LeftOut(message.count, highest)


def _measured(message: audit_pb2.Measured) -> Measured:
    kind = _member(audit_pb2.MeasureKind, message.kind, MeasureKind, MeasureKind.UNKNOWN)
    return Measured(kind, message.value, message.threshold)


def _adapter(message: audit_pb2.AuditedAdapter) -> AuditedAdapter:
    coverage = message.coverage
    return AuditedAdapter(
        sha256=message.sha256,
        size_bytes=message.size_bytes,
        format=message.format,
        strength=message.denoiser_strength,
        text_encoder_strength=message.text_encoder_strength,
        coverage=KeyCoverage(
            coverage.weight_tensors,
            coverage.mapped_tensors,
            coverage.matched_modules,
            tuple(coverage.unmapped),
        ),
        kind=_kind(message.kind),
        declared_name=message.declared_name,
    )


def list_request(token: str, asked: ListOptions) -> audit_pb2.ListAuditsRequest:
    """The question for one page.

    Raises:
        TypeError: there is no such option.
        ValueError: a moment has no timezone.
    """
    if unknown := sorted(set(asked) - ListOptions.__optional_keys__):
        raise TypeError(f"list takes no {', '.join(unknown)}")
    verdict, since, before = asked.get("verdict"), asked.get("since"), asked.get("before")
    request = audit_pb2.ListAuditsRequest(
        page_size=asked.get("page_size", 50),
        page_token=token,
        adapter_sha256=asked.get("adapter_sha256", "").lower(),
        verdict=wire_name(verdict) if verdict else None,
        service=asked.get("service", ""),
        base_model=asked.get("base_model", ""),
    )
    for field, moment in ((request.decided_since, since), (request.decided_before, before)):
        if moment is not None:
            if moment.tzinfo is None:
                raise ValueError(f"{moment} has no timezone; datetime.now(UTC) has one.")
            field.FromDatetime(moment)
    return request


def progress_from(message: audit_pb2.Progress) -> Progress:
    """Reads one report of progress."""
    return Progress(message.stage, message.fraction)


def concept_from(message: concept_pb2.Concept) -> Concept:
    """Reads a concept of the library."""
    return Concept(
        concept_id=message.concept_id,
        name=message.name,
        category=message.category,
        severity=_member(audit_pb2.Severity, message.severity, Severity, Severity.CRITICAL),
        role=_member(concept_pb2.ConceptRole, message.role, ConceptRole, ConceptRole.FORBIDDEN),
        prompts=tuple(message.prompts),
        picture_count=message.picture_count,
        picture_hands=tuple(message.picture_hands),
    )


def reference_message(
    reference: AdapterReference, *, data: DataPlace = "inline"
) -> audit_pb2.AdapterReference:
    """Writes where an adapter is and how it will be used."""
    at_hand = reference.data is not None
    return audit_pb2.AdapterReference(
        path=reference.path,
        uri=reference.uri,
        inline_bytes=reference.data if data == "inline" else None,
        stored_sha256=reference.sha256 if at_hand and data == "digest" else None,
        weight_name=reference.weight_name,
        revision=reference.revision,
        # Bytes that are at hand are bound to their digest, so that nothing on the way can
        # exchange them for others.
        expected_sha256=(reference.expected_sha256 or reference.sha256).lower(),
        denoiser_strength=reference.strength,
        text_encoder_strength=reference.text_encoder_strength,
        kind=None if reference.kind is AdapterKind.LORA else wire_name(reference.kind),
        declared_name=_as_utf8(reference.declared_name),
    )


def _as_utf8(name: str) -> str:
    """A name for people: one on disk may be no UTF-8, which a message cannot hold."""
    return name.encode("utf-8", "replace").decode()


def request_about(
    bare: audit_pb2.AuditRequest,
    references: Sequence[AdapterReference],
    data: DataPlace,
) -> audit_pb2.AuditRequest:
    """The request about these adapters; made only when it is sent, as it may hold their bytes."""
    request = audit_pb2.AuditRequest(
        adapters=[reference_message(reference, data=data) for reference in references]
    )
    request.MergeFrom(bare)
    return request


def upload_messages(
    reference: AdapterReference, file_name: str, request: audit_pb2.AuditRequest
) -> Iterator[audit_pb2.AuditUploadRequest]:
    """Writes an upload: a header that says what `request` says, then the bytes in chunks."""
    data = reference.data or b""
    header = audit_pb2.UploadHeader(
        declared_size_bytes=len(data),
        sha256=reference.sha256,
        file_name=_as_utf8(file_name),
        adapter=reference_message(reference, data="apart"),
        base_model=request.base_model,
        caller=request.caller,
        dry_run=request.dry_run,
        concept_ids=request.concept_ids,
    )
    yield audit_pb2.AuditUploadRequest(header=header)
    view = memoryview(data)
    for start in range(0, len(data), CHUNK_BYTES):
        yield audit_pb2.AuditUploadRequest(chunk=bytes(view[start : start + CHUNK_BYTES]))


def concept_message(concept: Concept) -> concept_pb2.Concept:
    """Writes a concept."""
    return concept_pb2.Concept(
        concept_id=concept.concept_id,
        name=concept.name,
        category=concept.category,
        severity=wire_name(concept.severity),
        role=wire_name(concept.role),
        prompts=concept.prompts,
        picture_count=concept.picture_count,
        picture_hands=concept.picture_hands,
    )


def concept_messages(
    concept: Concept, pictures: Iterable[bytes]
) -> Iterator[concept_pb2.CreateConceptRequest]:
    """Writes a new concept: its description, then its pictures."""
    # The service counts the pictures that come.
    message = concept_message(replace(concept, picture_count=0))
    yield concept_pb2.CreateConceptRequest(concept=message)
    for picture in pictures:
        yield concept_pb2.CreateConceptRequest(picture=picture)
