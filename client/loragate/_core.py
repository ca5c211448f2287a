"""What both clients share: which call to make, how to read its answer, and what to do without one.

A `Call` is everything about one call except how it travels; `AuditClient` and `AsyncAuditClient`
only send it. So the two cannot come to mean different things.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, NoReturn, TypeVar, Unpack

from loragate import _service_config, _wire
from loragate.config import ClientConfig, check_timeout
from loragate.errors import (
    ADAPTER_NOT_STORED,
    AuditError,
    DeadlineExceeded,
    Exhausted,
    Internal,
    Unavailable,
)
from loragate.fail_open import NO_DECISION, REFUSED, note_audit, note_fail_open
from loragate.reference import (
    ASK_FIRST_BYTES,
    INLINE_LIMIT_BYTES,
    AdapterReference,
    AuditOptions,
    Source,
    read_once,
    references_with,
)
from loragate.results import (
    SERVICE_UNAVAILABLE,
    AuditResult,
    Concept,
    Progress,
    Reason,
    Remedy,
    Verdict,
)
from loragate.v1 import audit_pb2, concept_pb2

T = TypeVar("T")

_AUDIT = "loragate.v1.AuditService/"
_CONCEPT = "loragate.v1.ConceptService/"


def _raise(error: AuditError) -> NoReturn:
    raise error


@dataclass(frozen=True)
class Call(Generic[T]):
    """One call, ready to be sent.

    Attributes:
        operation: what the user called, for messages.
        method: full name, for example "loragate.v1.AuditService/Audit".
        request: makes the message, or the stream of messages, anew for every attempt.
        parse: reads the answer, or one message of a stream of answers.
        settle: gives a result in spite of an error, or raises the error.
        resend: retries made by the SDK, for requests that gRPC cannot send again itself.
        with_bytes: what to send where the service does not hold the bytes that this call names
            by their digest.
    """

    operation: str
    method: str
    request: Callable[[], Any]
    parse: Callable[[Any], T]
    timeout_s: float
    settle: Callable[[AuditError], T] = _raise
    resend: _service_config.RetryPolicy | None = None
    with_bytes: Call[T] | None = None

    @property
    def name(self) -> str:
        """Short name of the method, for example "Audit"."""
        return self.method.rpartition("/")[2]


class Attempts(Generic[T]):
    """Counts the attempts of one call and keeps its deadline over all of them.

    Attributes:
        call: what to send next.
    """

    def __init__(self, call: Call[T]) -> None:
        self.call = call
        self._deadline_s = time.monotonic() + call.timeout_s
        self._made = 0

    def begin(self) -> float:
        """Counts an attempt; returns the seconds that are left for it."""
        self._made += 1
        return max(self._deadline_s - time.monotonic(), 0.001)

    def pause_after(self, error: AuditError) -> float | None:
        """Seconds until the next attempt; None when there is none."""
        if error.reason == ADAPTER_NOT_STORED and self.call.with_bytes is not None:
            self.call, self._made = self.call.with_bytes, 0
            return 0.0
        policy = self.call.resend
        if policy is None or error.code not in policy.codes or self._made >= policy.max_attempts:
            return None
        pause = max(policy.pause_s(self._made), error.retry_after_s or 0.0)
        return pause if time.monotonic() + pause < self._deadline_s else None


@dataclass(frozen=True)
class Page(Generic[T]):
    """One page of a list, and the token of the next; empty after the last."""

    items: tuple[T, ...]
    next_token: str


class Core:
    """Makes the calls of the API from what users pass."""

    def __init__(self, config: ClientConfig) -> None:
        self.config = config

    def audit(
        self,
        adapters: Source | Sequence[Source],
        *,
        file_name: str = "",
        **options: Unpack[AuditOptions],
    ) -> Call[AuditResult]:
        """Audit, or AuditUpload for bytes that do not fit into one message."""
        references = references_with(adapters, options)
        large = _is_large(references)
        bare = self._request(options)
        method = _AUDIT + ("AuditUpload" if large else "Audit")
        data = references[0].data if len(references) == 1 else None

        def messages() -> Any:
            if large:
                return _wire.upload_messages(references[0], data or b"", file_name, bare)
            return _asking(bare, references, "inline")

        call = Call(
            operation="audit",
            method=method,
            request=messages,
            parse=lambda response: replace(
                _checked(response.verdict, references), audited_bytes=data
            ),
            timeout_s=self._timeout(method, options.get("timeout")),
            settle=lambda error: replace(self._without_decision(error), audited_bytes=data),
            # gRPC keeps at most 256 KiB of a request for another attempt, so an upload is sent
            # again from here, by the policy of Audit.
            resend=_service_config.retry_policy(_AUDIT + "Audit") if large else None,
        )
        if sum(len(reference.data or b"") for reference in references) < ASK_FIRST_BYTES:
            return call
        return replace(
            call,
            method=_AUDIT + "Audit",
            request=lambda: _asking(bare, references, "digest"),
            resend=None,
            with_bytes=call,
        )

    def audit_file(
        self, path: str | os.PathLike[str], **options: Unpack[AuditOptions]
    ) -> Call[AuditResult]:
        """As `audit`, for a local file, which is read here and only here."""
        return self.audit(read_once(path), file_name=Path(path).name, **options)

    def watch(
        self,
        adapters: Source | Sequence[Source],
        **options: Unpack[AuditOptions],
    ) -> Call[Progress | AuditResult]:
        """WatchAudit."""
        references = references_with(adapters, options)
        if _is_large(references):
            raise ValueError(
                f"watch() takes at most {INLINE_LIMIT_BYTES} bytes; use audit(), or name a path."
            )
        bare = self._request(options)
        data = references[0].data if len(references) == 1 else None

        def parse(event: audit_pb2.WatchAuditResponse) -> Progress | AuditResult:
            if event.WhichOneof("event") == "progress":
                return _wire.progress_from(event.progress)
            return replace(_checked(event.verdict, references), audited_bytes=data)

        return Call(
            operation="watch",
            method=_AUDIT + "WatchAudit",
            request=lambda: audit_pb2.WatchAuditRequest(audit=_asking(bare, references, "inline")),
            parse=parse,
            timeout_s=self._timeout(_AUDIT + "WatchAudit", options.get("timeout")),
            resend=_service_config.retry_policy(_AUDIT + "WatchAudit"),
            settle=lambda error: replace(self._without_decision(error), audited_bytes=data),
        )

    def get(self, decision_id: str, timeout: float | None) -> Call[AuditResult]:
        """GetAudit."""
        return Call(
            operation="get",
            method=_AUDIT + "GetAudit",
            request=lambda: audit_pb2.GetAuditRequest(decision_id=decision_id),
            parse=lambda response: _wire.result_from(response.verdict),
            timeout_s=self._timeout(_AUDIT + "GetAudit", timeout),
        )

    def list_page(
        self,
        token: str,
        *,
        adapter_sha256: str,
        verdict: Verdict | None,
        page_size: int,
        timeout: float | None,
    ) -> Call[Page[AuditResult]]:
        """One page of ListAudits."""
        request = audit_pb2.ListAuditsRequest(
            page_size=page_size,
            page_token=token,
            adapter_sha256=adapter_sha256.lower(),
            verdict=_wire.wire_name(verdict) if verdict else None,
        )
        return Call(
            operation="list",
            method=_AUDIT + "ListAudits",
            request=lambda: request,
            parse=lambda response: Page(
                tuple(_wire.result_from(verdict) for verdict in response.verdicts),
                response.next_page_token,
            ),
            timeout_s=self._timeout(_AUDIT + "ListAudits", timeout),
        )

    def concept_page(
        self, token: str, *, page_size: int, timeout: float | None
    ) -> Call[Page[Concept]]:
        """One page of ListConcepts."""
        return Call(
            operation="concepts.list",
            method=_CONCEPT + "ListConcepts",
            request=lambda: concept_pb2.ListConceptsRequest(page_size=page_size, page_token=token),
            parse=lambda response: Page(
                tuple(_wire.concept_from(concept) for concept in response.concepts),
                response.next_page_token,
            ),
            timeout_s=self._timeout(_CONCEPT + "ListConcepts", timeout),
        )

    def concept_get(self, concept_id: str, timeout: float | None) -> Call[Concept]:
        """GetConcept."""
        return Call(
            operation="concepts.get",
            method=_CONCEPT + "GetConcept",
            request=lambda: concept_pb2.GetConceptRequest(concept_id=concept_id),
            parse=lambda response: _wire.concept_from(response.concept),
            timeout_s=self._timeout(_CONCEPT + "GetConcept", timeout),
        )

    def concept_create(
        self, concept: Concept, pictures: Iterable[bytes], timeout: float | None
    ) -> Call[Concept]:
        """CreateConcept. Never sent twice: the first attempt may have created it."""
        kept = tuple(pictures)
        return Call(
            operation="concepts.create",
            method=_CONCEPT + "CreateConcept",
            request=lambda: _wire.concept_messages(concept, kept),
            parse=lambda response: _wire.concept_from(response.concept),
            timeout_s=self._timeout(_CONCEPT + "CreateConcept", timeout),
        )

    def concept_delete(self, concept_id: str, timeout: float | None) -> Call[str]:
        """DeleteConcept; the answer is the digest of the library without the concept."""
        return Call(
            operation="concepts.delete",
            method=_CONCEPT + "DeleteConcept",
            request=lambda: concept_pb2.DeleteConceptRequest(concept_id=concept_id),
            parse=lambda response: str(response.library_digest),
            timeout_s=self._timeout(_CONCEPT + "DeleteConcept", timeout),
        )

    def _timeout(self, method: str, timeout: float | None) -> float:
        check_timeout(timeout)
        return timeout or self.config.timeout_s or _service_config.timeout_s(method)

    def _request(self, options: AuditOptions) -> audit_pb2.AuditRequest:
        """What is asked, without the adapters that it is asked about."""
        return audit_pb2.AuditRequest(
            base_model=options.get("base_model", ""),
            caller=audit_pb2.CallerContext(
                service=self.config.service,
                tenant=self.config.tenant,
                # The same for every attempt, so that the log shows which belong together.
                request_id=options.get("request_id") or uuid.uuid4().hex,
            ),
            dry_run=options.get("dry_run", False),
            concept_ids=options.get("concept_ids", ()),
        )

    def _without_decision(self, error: AuditError) -> AuditResult:
        """The verdict by `on_unavailable`, where the error leaves room for one."""
        choice = self.config.on_unavailable
        no_decision = isinstance(error, Unavailable | Exhausted | DeadlineExceeded)
        if choice == "raise" or not no_decision:
            note_audit(NO_DECISION if no_decision else REFUSED)
            raise error
        if choice == "allow":
            note_fail_open(error)
        else:
            note_audit(NO_DECISION)
        verdict = Verdict.ALLOW if choice == "allow" else Verdict.BLOCK
        return AuditResult(
            verdict=verdict,
            would_be_verdict=verdict,
            remedy=Remedy.NONE,
            reasons=(Reason(SERVICE_UNAVAILABLE, str(error)),),
            cause=error,
        )


def _asking(
    bare: audit_pb2.AuditRequest,
    references: Sequence[AdapterReference],
    data: _wire.DataPlace,
) -> audit_pb2.AuditRequest:
    """The request about these adapters; made only when it is sent, as it may hold their bytes."""
    request = audit_pb2.AuditRequest(
        adapters=[_wire.reference_message(reference, data=data) for reference in references]
    )
    request.MergeFrom(bare)
    return request


def _is_large(references: Sequence[AdapterReference]) -> bool:
    """Whether the bytes have to be uploaded.

    Raises:
        ValueError: they do, but there are several adapters, and an upload carries one.
    """
    inline = sum(len(reference.data or b"") for reference in references)
    if inline > INLINE_LIMIT_BYTES and len(references) > 1:
        raise ValueError(
            f"Several adapters in one audit may have at most {INLINE_LIMIT_BYTES} bytes inline, "
            f"not {inline}. Put them where the server can read them and pass paths or URIs."
        )
    return inline > INLINE_LIMIT_BYTES


def _checked(message: audit_pb2.Verdict, references: Sequence[AdapterReference]) -> AuditResult:
    """Reads a verdict and makes sure that it is about the adapters that were asked about.

    Raises:
        Internal: it is not, or it names no decision.
    """
    result = _wire.result_from(message)
    asked = [reference.sha256 for reference in references]
    audited = [adapter.sha256 for adapter in result.adapters]
    matches = len(asked) == len(audited) and all(
        expected in ("", actual) for expected, actual in zip(asked, audited, strict=True)
    )
    if not result.decision_id or not matches:
        note_audit(NO_DECISION)
        raise Internal(
            f"The answer is about {', '.join(audited) or 'no adapter'}, "
            f"but the question was about {', '.join(a or 'any bytes' for a in asked)}.",
            operation="audit",
            remedy="Load nothing; find out what stands between this client and the service.",
            decision_id=result.decision_id,
        )
    note_audit(result.verdict.value.lower())
    return result
