"""`FakeAuditServer`: speaks the protocol on loopback and answers what a test tells it to."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NoReturn, Self

import grpc

from loragate._wire import concept_message
from loragate.results import Concept, Verdict
from loragate.testing._answers import audited, code_of, key_of, trailing_metadata, verdict_message
from loragate.v1 import audit_pb2, audit_pb2_grpc, concept_pb2, concept_pb2_grpc


@dataclass(frozen=True)
class RecordedCall:
    """One call that reached the server.

    Attributes:
        method: short name, for example "Audit".
        request: the wire message; of an upload or a new concept, its first.
        data: bytes of all chunks of an upload.
        metadata: what the caller sent along.
    """

    method: str
    request: Any
    data: bytes = field(default=b"", repr=False)
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Failure:
    code: grpc.StatusCode
    message: str
    trailing: tuple[tuple[str, bytes], ...]
    method: str


class FakeAuditServer:
    """A real gRPC server in this process, without an audit behind it.

    Example:
        with FakeAuditServer(verdicts={sha256: Verdict.BLOCK}) as server:
            with AuditClient(server.target) as client:
                assert not client.audit(data).allowed
            assert server.calls[0].method == "Audit"

    Args:
        default: verdict for adapters that `verdicts` does not name.
        verdicts: verdict by sha256 of the bytes, or by the path or URI asked for. Of several
            adapters the gravest verdict counts.
        concept: id of the concept that every verdict but ALLOW is about.
        concepts: library that ConceptService starts with.
        delay_s: seconds that every answer takes.
        credentials: `grpc.ssl_server_credentials(...)` to speak TLS; None speaks in the clear.

    Attributes:
        calls: what reached the server, in order, each attempt on its own.
        falsify: changes every verdict on its way out, for tests of what a client believes; what is
            on record stays as it was.
    """

    _GRAVITY = (Verdict.ALLOW, Verdict.REVIEW, Verdict.INCONCLUSIVE, Verdict.BLOCK)

    def __init__(
        self,
        *,
        default: Verdict = Verdict.ALLOW,
        verdicts: Mapping[str, Verdict] | None = None,
        concept: str = "forbidden-concept",
        concepts: tuple[Concept, ...] = (),
        delay_s: float = 0.0,
        credentials: Any = None,
    ) -> None:
        self.default = default
        self.verdicts = dict(verdicts or {})
        self.concept = concept
        self.delay_s = delay_s
        self.calls: list[RecordedCall] = []
        self.target = ""
        self.falsify: Callable[[audit_pb2.Verdict], object] | None = None
        self._failures: deque[_Failure] = deque()
        self._lock = threading.Lock()
        self._decisions: dict[str, audit_pb2.Verdict] = {}
        self._stored: dict[str, int] = {}  # sizes in bytes, by sha256
        self._concepts = {concept.concept_id: concept_message(concept) for concept in concepts}
        self._credentials = credentials
        self._server: Any = None

    def fail_next(
        self,
        reason: str,
        *,
        times: int = 1,
        method: str = "",
        message: str = "As the test wishes.",
        remedy: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: Mapping[str, str] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        """Lets the next calls fail with a reason of `loragate.v1.ErrorReason`.

        With a method, such as "AuditUpload", only its next calls.

        Raises:
            ValueError: there is no such reason.
        """
        trailing = trailing_metadata(
            reason,
            message,
            remedy=remedy,
            metadata=dict(metadata or {}),
            violations=dict(violations or {}),
            retry_after_s=retry_after_s,
        )
        with self._lock:
            self._failures.extend([_Failure(code_of(reason), message, trailing, method)] * times)

    def start(self) -> Self:
        """Listens on a free port of loopback; `target` names it."""
        self._server = grpc.server(ThreadPoolExecutor(8, thread_name_prefix="fake-audit"))
        audit_pb2_grpc.add_AuditServiceServicer_to_server(  # type: ignore[no-untyped-call]
            _AuditService(self), self._server
        )
        concept_pb2_grpc.add_ConceptServiceServicer_to_server(  # type: ignore[no-untyped-call]
            _ConceptService(self), self._server
        )
        if self._credentials is None:
            port = self._server.add_insecure_port("127.0.0.1:0")
        else:
            port = self._server.add_secure_port("127.0.0.1:0", self._credentials)
        self._server.start()
        self.target = f"127.0.0.1:{port}"
        return self

    def stop(self) -> None:
        """Stops at once; calls in flight get UNAVAILABLE or CANCELLED."""
        if self._server is not None:
            self._server.stop(None).wait()
            self._server = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def _note(self, method: str, request: Any, context: Any, data: bytes = b"") -> None:
        """Records a call, waits, and fails it where the test wants that."""
        metadata = {item.key: item.value for item in context.invocation_metadata()}
        with self._lock:
            self.calls.append(RecordedCall(method, request, data, metadata))
            failure = next((one for one in self._failures if one.method in ("", method)), None)
            if failure is not None:
                self._failures.remove(failure)
        if self.delay_s:
            time.sleep(self.delay_s)
        if failure is not None:
            context.set_trailing_metadata(failure.trailing)
            context.abort(failure.code, failure.message)

    def _refuse(self, context: Any, reason: str, message: str) -> NoReturn:
        context.set_trailing_metadata(
            trailing_metadata(
                reason, message, remedy="", metadata={}, violations={}, retry_after_s=None
            )
        )
        context.abort(code_of(reason), message)
        raise AssertionError("abort() raises")

    def _decide(
        self,
        adapters: list[tuple[audit_pb2.AdapterReference, str, int]],
        request: audit_pb2.AuditRequest,
    ) -> audit_pb2.Verdict:
        """The scripted verdict over (reference, key, size) of each adapter, recorded."""
        kinds = [self.verdicts.get(key, self.default) for _, key, _ in adapters]
        answer = verdict_message(
            max(kinds, key=self._GRAVITY.index),
            [audited(*adapter) for adapter in adapters],
            request,
            self.concept,
        )
        with self._lock:
            self._decisions[answer.decision_id] = answer
            self._stored.update((key, size) for _, key, size in adapters if size)
        return self._sent(answer)

    def _sent(self, recorded: audit_pb2.Verdict) -> audit_pb2.Verdict:
        """What is told of a decision on record."""
        if self.falsify is None:
            return recorded
        told = audit_pb2.Verdict()
        told.CopyFrom(recorded)
        self.falsify(told)
        return told

    def _decide_request(self, request: audit_pb2.AuditRequest, context: Any) -> audit_pb2.Verdict:
        if not request.adapters:
            self._refuse(context, "REQUEST_INVALID", "There is no adapter to audit.")
        adapters = []
        for ref in request.adapters:
            key, size = key_of(ref), len(ref.inline_bytes)
            if ref.WhichOneof("source") == "stored_sha256":
                if key not in self._stored:
                    self._refuse(context, "ADAPTER_NOT_STORED", "These bytes never came here.")
                size = self._stored[key]
            adapters.append((ref, key, size))
        return self._decide(adapters, request)


class _AuditService(audit_pb2_grpc.AuditServiceServicer):
    """AuditService over the script of a `FakeAuditServer`."""

    def __init__(self, fake: FakeAuditServer) -> None:
        self._fake = fake

    def Audit(self, request: audit_pb2.AuditRequest, context: Any) -> Any:  # noqa: N802
        self._fake._note("Audit", request, context)
        return audit_pb2.AuditResponse(verdict=self._fake._decide_request(request, context))

    def AuditUpload(self, parts: Iterator[Any], context: Any) -> Any:  # noqa: N802
        header = next(parts).header
        data = b"".join(part.chunk for part in parts)
        self._fake._note("AuditUpload", header, context, data)
        sha256 = hashlib.sha256(data).hexdigest()
        if len(data) != header.declared_size_bytes:
            self._fake._refuse(context, "DECLARED_SIZE_MISMATCH", "Not the declared size.")
        if sha256 != header.sha256:
            self._fake._refuse(context, "SHA256_MISMATCH", "Not the declared digest.")
        request = audit_pb2.AuditRequest(
            base_model=header.base_model, dry_run=header.dry_run, concept_ids=header.concept_ids
        )
        verdict = self._fake._decide([(header.adapter, sha256, len(data))], request)
        return audit_pb2.AuditUploadResponse(verdict=verdict)

    def WatchAudit(self, request: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        self._fake._note("WatchAudit", request, context)
        verdict = self._fake._decide_request(request.audit, context)
        for stage in ("queued", "intake", "screen", "response", "policy", "record"):
            progress = audit_pb2.Progress(stage=stage, fraction=1.0)
            yield audit_pb2.WatchAuditResponse(progress=progress)
        yield audit_pb2.WatchAuditResponse(verdict=verdict)

    def GetAudit(self, request: audit_pb2.GetAuditRequest, context: Any) -> Any:  # noqa: N802
        self._fake._note("GetAudit", request, context)
        verdict = self._fake._decisions.get(request.decision_id)
        if verdict is None:
            self._fake._refuse(context, "DECISION_UNKNOWN", "There is no such decision.")
        return audit_pb2.GetAuditResponse(verdict=self._fake._sent(verdict))

    def ListAudits(self, request: audit_pb2.ListAuditsRequest, context: Any) -> Any:  # noqa: N802
        self._fake._note("ListAudits", request, context)
        found = [
            verdict
            for verdict in reversed(self._fake._decisions.values())
            if request.verdict in (0, verdict.verdict)
            and (
                not request.adapter_sha256
                or request.adapter_sha256 in [adapter.sha256 for adapter in verdict.adapters]
            )
            and request.base_model in ("", verdict.base_model)
            and request.decided_since.ToNanoseconds() <= verdict.decided_at.ToNanoseconds()
            and (
                not request.HasField("decided_before")
                or verdict.decided_at.ToNanoseconds() < request.decided_before.ToNanoseconds()
            )
        ]
        page, token = _page(found, request.page_size, request.page_token)
        told = [self._fake._sent(verdict) for verdict in page]
        return audit_pb2.ListAuditsResponse(verdicts=told, next_page_token=token)


class _ConceptService(concept_pb2_grpc.ConceptServiceServicer):
    """ConceptService over a dictionary."""

    def __init__(self, fake: FakeAuditServer) -> None:
        self._fake = fake

    def ListConcepts(self, request: Any, context: Any) -> Any:  # noqa: N802
        self._fake._note("ListConcepts", request, context)
        found = [concept for _, concept in sorted(self._fake._concepts.items())]
        page, token = _page(found, request.page_size, request.page_token)
        return concept_pb2.ListConceptsResponse(
            concepts=page, next_page_token=token, library_digest=self._digest()
        )

    def GetConcept(self, request: Any, context: Any) -> Any:  # noqa: N802
        self._fake._note("GetConcept", request, context)
        return concept_pb2.GetConceptResponse(concept=self._find(request.concept_id, context))

    def CreateConcept(self, parts: Iterator[Any], context: Any) -> Any:  # noqa: N802
        concept = next(parts).concept
        pictures = [part.picture for part in parts]
        self._fake._note("CreateConcept", concept, context, b"".join(pictures))
        if concept.concept_id in self._fake._concepts:
            self._fake._refuse(context, "CONCEPT_EXISTS", "The concept exists already.")
        concept.picture_count = len(pictures)
        self._fake._concepts[concept.concept_id] = concept
        return concept_pb2.CreateConceptResponse(concept=concept, library_digest=self._digest())

    def DeleteConcept(self, request: Any, context: Any) -> Any:  # noqa: N802
        self._fake._note("DeleteConcept", request, context)
        self._find(request.concept_id, context)
        del self._fake._concepts[request.concept_id]
        return concept_pb2.DeleteConceptResponse(library_digest=self._digest())

    def _find(self, concept_id: str, context: Any) -> concept_pb2.Concept:
        concept = self._fake._concepts.get(concept_id)
        if concept is None:
            self._fake._refuse(context, "CONCEPT_UNKNOWN", f"There is no concept {concept_id!r}.")
        return concept

    def _digest(self) -> str:
        return hashlib.sha256("\n".join(sorted(self._fake._concepts)).encode()).hexdigest()


def _page(items: list[Any], size: int, token: str) -> tuple[list[Any], str]:
    """One page and the token of the next, which is simply where it begins."""
    start = int(token or 0)
    end = start + min(size or 50, 100)
    return items[start:end], str(end) if end < len(items) else ""
