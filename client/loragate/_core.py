"""What both clients share: which call to make, how to read its answer, and what to do without one.

A `Call` is everything about one call except how it travels; `AuditClient` and `AsyncAuditClient`
only send it. So the two cannot come to mean different things. What an audit is answered becomes a
result in one place, where it is held against the question.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar, Unpack

from loragate import _service_config, _wire
from loragate._call import Call
from loragate._question import Question, believed, require_sha256, result_for
from loragate._reading import read_once
from loragate._service_config import RetryPolicy
from loragate._signed.folder import AcceptedVerdicts
from loragate.config import ClientConfig, check_timeout
from loragate.fail_open import ACCEPTED, note_answer, note_audit, without_decision
from loragate.listing import ListOptions, require_asked_for
from loragate.reference import (
    ASK_FIRST_BYTES,
    INLINE_LIMIT_BYTES,
    AdapterReference,
    AuditOptions,
    Source,
    is_large,
    references_with,
)
from loragate.results import (
    AuditResult,
    Concept,
    Progress,
)
from loragate.v1 import audit_pb2, concept_pb2

T = TypeVar("T")

_AUDIT = "loragate.v1.AuditService/"
_CONCEPT = "loragate.v1.ConceptService/"

INLINE_BYTES_KEY = "loragate-inline-bytes"
"""How many bytes of adapters a message carries; where there is no room, it need not be read."""


@dataclass(frozen=True)
class Page(Generic[T]):
    """One page of a list, and the token of the next; empty after the last."""

    items: tuple[T, ...]
    next_token: str


class Core:
    """Makes the calls of the API from what users pass."""

    def __init__(self, config: ClientConfig) -> None:
        self.config = config
        self._accepted: AcceptedVerdicts | None = None
        if config.accept_signed is not None and config.require_signature is not None:
            self._accepted = AcceptedVerdicts(config.accept_signed, config.require_signature)

    def audit(
        self,
        adapters: Source | Sequence[Source],
        *,
        file_name: str = "",
        **options: Unpack[AuditOptions],
    ) -> Call[AuditResult]:
        """Audit, or AuditUpload for bytes that do not fit into one message."""
        references = references_with(adapters, options)
        known = self._from_elsewhere(references, options)
        large = known is None and is_large(references)
        bare = self._request(options)

        def messages() -> Any:
            if large:
                return _wire.upload_messages(references[0], file_name, bare)
            return _wire.request_about(bare, references, "inline")

        size = sum(len(reference.data or b"") for reference in references)
        call = self._about(
            references,
            options,
            "AuditUpload" if large else "Audit",
            messages,
            metadata=() if large else _inline_bytes(size),
        )
        if known is not None or size < ASK_FIRST_BYTES:
            return replace(call, known=known)
        first = self._by_digest(references, options, bare)
        return replace(first, timeout_s=call.timeout_s, with_bytes=call)

    def audit_file(
        self, path: str | os.PathLike[str], **options: Unpack[AuditOptions]
    ) -> Call[AuditResult]:
        """As `audit`, for a local file, which is read here and only here."""
        name = Path(path).name
        reference = AdapterReference(data=read_once(path), declared_name=name)
        return self.audit(reference, file_name=name, **options)

    def audit_stored(
        self, adapters: Sequence[AdapterReference], **options: Unpack[AuditOptions]
    ) -> Call[AuditResult]:
        """Audit of bytes that the service holds already: none are sent, however many there are.

        Raises:
            ValueError: an adapter is a place; which bytes are there, only the service can see.
        """
        references = references_with(adapters, options)
        if any(reference.data is None for reference in references):
            raise ValueError("audit_stored takes adapters with their bytes; use audit for places.")
        call = self._by_digest(references, options, self._request(options))
        return replace(call, known=self._from_elsewhere(references, options))

    def watch(
        self,
        adapters: Source | Sequence[Source],
        **options: Unpack[AuditOptions],
    ) -> Call[Progress | AuditResult]:
        """WatchAudit."""
        references = references_with(adapters, options)
        if is_large(references):
            raise ValueError(
                f"watch() takes at most {INLINE_LIMIT_BYTES} bytes; use audit(), or name a path."
            )
        bare = self._request(options)
        call = self._about(
            references,
            options,
            "WatchAudit",
            lambda: audit_pb2.WatchAuditRequest(
                audit=_wire.request_about(bare, references, "inline")
            ),
            metadata=_inline_bytes(sum(len(reference.data or b"") for reference in references)),
        )

        def parse(event: audit_pb2.WatchAuditResponse) -> Progress | AuditResult:
            if event.WhichOneof("event") == "progress":
                return _wire.progress_from(event.progress)
            return call.parse(event)

        return Call(
            operation="watch",
            method=call.method,
            request=call.request,
            parse=parse,
            timeout_s=call.timeout_s,
            settle=call.settle,
            resend=call.resend,
            known=self._from_elsewhere(references, options),
            metadata=call.metadata,
        )

    def get(self, decision_id: str, timeout: float | None) -> Call[AuditResult]:
        """GetAudit."""
        return Call(
            operation="get",
            method=_AUDIT + "GetAudit",
            request=lambda: audit_pb2.GetAuditRequest(decision_id=decision_id),
            parse=lambda response: self._recorded(response.verdict, {}, decision_id=decision_id),
            timeout_s=self._timeout(_AUDIT + "GetAudit", timeout),
            resend=self._resend(_AUDIT + "GetAudit"),
        )

    def list_page(self, token: str, **options: Unpack[ListOptions]) -> Call[Page[AuditResult]]:
        """One page of ListAudits.

        Raises:
            ValueError: a digest that no adapter can have, or a moment without a timezone.
        """
        require_sha256(options.get("adapter_sha256", ""))
        request = _wire.list_request(token, options)
        return Call(
            operation="list",
            method=_AUDIT + "ListAudits",
            request=lambda: request,
            parse=lambda response: Page(
                tuple(self._recorded(one, options) for one in response.verdicts),
                response.next_page_token,
            ),
            timeout_s=self._timeout(_AUDIT + "ListAudits", options.get("timeout")),
            resend=self._resend(_AUDIT + "ListAudits"),
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
            resend=self._resend(_CONCEPT + "ListConcepts"),
        )

    def concept_get(self, concept_id: str, timeout: float | None) -> Call[Concept]:
        """GetConcept."""
        return Call(
            operation="concepts.get",
            method=_CONCEPT + "GetConcept",
            request=lambda: concept_pb2.GetConceptRequest(concept_id=concept_id),
            parse=lambda response: _wire.concept_from(response.concept),
            timeout_s=self._timeout(_CONCEPT + "GetConcept", timeout),
            resend=self._resend(_CONCEPT + "GetConcept"),
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

    def _resend(self, method: str, usual: RetryPolicy | None = None) -> RetryPolicy | None:
        """The retries that the SDK makes itself: all of them, where the user sets them."""
        if self.config.retry is None:
            return usual
        return _service_config.chosen_policy(method, self.config.retry)

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

    def _by_digest(
        self,
        references: Sequence[AdapterReference],
        options: AuditOptions,
        bare: audit_pb2.AuditRequest,
    ) -> Call[AuditResult]:
        return self._about(
            references,
            options,
            "Audit",
            lambda: _wire.request_about(bare, references, "digest"),
            metadata=_inline_bytes(0),
        )

    def _about(
        self,
        references: Sequence[AdapterReference],
        options: AuditOptions,
        name: str,
        request: Callable[[], Any],
        metadata: tuple[tuple[str, str], ...],
    ) -> Call[AuditResult]:
        """A call whose answer has to fit the question that these references and options ask."""
        question = self._question(references, options)
        data = references[0].data if len(references) == 1 else None

        def parse(response: Any) -> AuditResult:
            result = result_for(question, response.verdict)
            note_answer(result)
            return replace(result, audited_bytes=data)

        return Call(
            operation="audit",
            method=_AUDIT + name,
            request=request,
            parse=parse,
            timeout_s=self._timeout(_AUDIT + name, options.get("timeout")),
            settle=lambda error: replace(
                without_decision(
                    error,
                    self.config.on_unavailable,
                    sources_elsewhere=question.sources_elsewhere,
                ),
                audited_bytes=data,
            ),
            resend=self._resend(_AUDIT + name, _service_config.resend_policy(_AUDIT + name)),
            metadata=metadata,
        )

    def _question(self, references: Sequence[AdapterReference], options: AuditOptions) -> Question:
        skew, keys = self.config.clock_skew_s, self.config.require_signature
        return Question.of(references, options, clock_skew_s=skew, keys=keys)

    def _from_elsewhere(
        self, references: Sequence[AdapterReference], options: AuditOptions
    ) -> AuditResult | None:
        """The result by a signed verdict of `accept_signed`, which spares the call."""
        if self._accepted is None:
            return None
        result = self._accepted.answer(self._question(references, options))
        if result is None:
            return None
        note_audit(ACCEPTED)
        return replace(result, audited_bytes=references[0].data if len(references) == 1 else None)

    def _recorded(
        self, message: audit_pb2.Verdict, asked: ListOptions, *, decision_id: str = ""
    ) -> AuditResult:
        """Reads a decision on record, which has to be one of those that were asked for."""
        result = _wire.result_from(message)
        if not result.decision_id or decision_id not in ("", result.decision_id):
            raise ValueError(f"the decision {result.decision_id!r} was not asked for")
        require_asked_for(result, asked)
        result = replace(result, clock_skew_s=self.config.clock_skew_s)
        operation = "get" if decision_id else "list"
        return believed(self.config.require_signature, message, result, operation=operation)


def _inline_bytes(size: int) -> tuple[tuple[str, str], ...]:
    """Says that a message carries so many bytes of adapters."""
    return ((INLINE_BYTES_KEY, str(size)),)
