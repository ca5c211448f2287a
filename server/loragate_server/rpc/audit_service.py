"""`loragate.v1.AuditService`: wire messages in, the gate's answers out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol, Unpack

import grpc

from loragate.v1 import audit_pb2 as wire
from loragate.v1 import audit_pb2_grpc
from loragate_server.config.listen import Listen
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.gate.gate import Gate
from loragate_server.gate.intake import UploadSession
from loragate_server.progress import Leash, deadline_passed
from loragate_server.record.verdict import Verdict
from loragate_server.rpc.access import HOST, IDENTITY, SEES_SCORES
from loragate_server.rpc.convert import (
    Filters,
    audit_request,
    filters_of,
    upload_request,
    verdict_message,
)
from loragate_server.rpc.leash import call_leash
from loragate_server.rpc.unread import RefusedLately
from loragate_server.rpc.uploads import Uploads

SMALLEST_STEP = 0.01
"""Progress within a stage is told in steps of this share."""

KEPT_ANSWERS = 1024
"""Cached verdicts whose wire messages are kept; a few KiB each."""


class Records(Protocol):
    """What the service needs of `loragate_server.record.recorder.Recorder`; thread-safe.

    A wall is between them: callers read the record, and only the gate writes it.
    """

    def get(self, decision_id: str) -> Verdict:
        """One recorded decision."""
        ...

    def list(
        self, page_size: int = 0, page_token: str = "", **filters: Unpack[Filters]
    ) -> tuple[list[Verdict], str]:
        """A page of recorded decisions, and the next page's token."""
        ...


class AuditService(audit_pb2_grpc.AuditServiceServicer):
    """Answers callers; whatever is raised becomes a status in the interceptors."""

    def __init__(self, gate: Gate, records: Records, listen: Listen, lately: RefusedLately) -> None:
        self._gate = gate
        self._lately = lately
        self._records = records
        self._uploads = Uploads(listen.max_uploads_per_caller)
        self._upload_timeout_s = listen.upload_timeout_s
        self._again: dict[tuple[str, bool], wire.AuditResponse] = {}

    async def Audit(  # noqa: N802
        self, request: wire.AuditRequest, context: grpc.aio.ServicerContext
    ) -> wire.AuditResponse:
        """Decides over the adapters of one message."""
        with call_leash(context) as leash:
            verdict = await self._decide(request, leash)
        return self._audit_response(verdict)

    async def _decide(self, message: wire.AuditRequest, leash: Leash) -> Verdict:
        """The gate's answer; whose bytes were read in vain is remembered for a moment."""
        request = audit_request(message)
        try:
            return await self._gate.decide(request, leash)
        except NoDecisionError as error:
            if error.reason is ErrorReason.QUEUE_FULL and request.inline_bytes:
                self._lately.note(request.asker)
            raise

    def _audit_response(self, verdict: Verdict) -> wire.AuditResponse:
        """The answer; that to a question asked again is made once."""
        if not verdict.cached:
            return wire.AuditResponse(verdict=_told(verdict))
        key = verdict.decision_id, SEES_SCORES.get()
        response = self._again.get(key)
        if response is None:
            response = wire.AuditResponse(verdict=_told(verdict))
            self._again[key] = response
            if len(self._again) > KEPT_ANSWERS:
                del self._again[next(iter(self._again))]
        return response

    async def AuditUpload(  # noqa: N802
        self,
        request_iterator: AsyncIterator[wire.AuditUploadRequest],
        context: grpc.aio.ServicerContext,
    ) -> wire.AuditUploadResponse:
        """Takes a file in, then decides over it."""
        with call_leash(context) as leash:
            with self._uploads.one_of(IDENTITY.get() or HOST.get()):
                async with _at_most(self._upload_timeout_s):
                    header = await _header(request_iterator)
                request = upload_request(header)
                with self._gate.receive(
                    request, header.declared_size_bytes, header.sha256, header.file_name, leash
                ) as session:
                    async with _at_most(self._upload_timeout_s):
                        await _receive(request_iterator, session, leash)
                    stored = await session.finish(leash)
            verdict = await self._gate.decide_stored(
                request, stored, leash, intake_s=session.spent_s
            )
        return wire.AuditUploadResponse(verdict=_told(verdict))

    async def WatchAudit(  # noqa: N802
        self, request: wire.WatchAuditRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[wire.WatchAuditResponse]:
        """Decides as `Audit` does, and tells how far it has come."""
        feed = _ProgressFeed()
        with call_leash(context, feed.report) as leash:
            deciding = asyncio.ensure_future(self._decide(request.audit, leash))
            deciding.add_done_callback(feed.close)
            try:
                async for progress in feed:
                    yield wire.WatchAuditResponse(progress=progress)
                verdict = await deciding
            finally:
                deciding.cancel()
        yield wire.WatchAuditResponse(verdict=_told(verdict))

    async def GetAudit(  # noqa: N802
        self, request: wire.GetAuditRequest, context: grpc.aio.ServicerContext
    ) -> wire.GetAuditResponse:
        """Looks one decision up."""
        verdict = await asyncio.to_thread(self._records.get, request.decision_id)
        return wire.GetAuditResponse(verdict=_told(verdict))

    async def ListAudits(  # noqa: N802
        self, request: wire.ListAuditsRequest, context: grpc.aio.ServicerContext
    ) -> wire.ListAuditsResponse:
        """Looks a page of decisions up."""
        verdicts, token = await asyncio.to_thread(
            self._records.list, request.page_size, request.page_token, **filters_of(request)
        )
        return wire.ListAuditsResponse(
            verdicts=[_told(each) for each in verdicts], next_page_token=token
        )


def _told(verdict: Verdict) -> wire.Verdict:
    """The decision as the caller of the running call may see it."""
    return verdict_message(verdict, scores=SEES_SCORES.get())


async def _header(messages: AsyncIterator[wire.AuditUploadRequest]) -> wire.UploadHeader:
    first = await anext(messages, None)
    if first is None or first.WhichOneof("part") != "header":
        raise _protocol("The upload does not begin with a header.")
    return first.header


async def _receive(
    messages: AsyncIterator[wire.AuditUploadRequest], session: UploadSession, leash: Leash
) -> None:
    async for message in messages:
        if message.WhichOneof("part") != "chunk":
            raise _protocol("After the header came something that is no chunk.")
        await session.write(message.chunk, leash)


@asynccontextmanager
async def _at_most(seconds: float) -> AsyncIterator[None]:
    """Gives an upload up that trickles in for longer.

    Raises:
        NoDecisionError: DEADLINE_EXCEEDED.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise deadline_passed(
            f"The upload was not complete after {seconds:g} s.",
            "Upload over a faster connection, or raise listen.upload_timeout_s.",
        ) from None


def _protocol(message: str) -> NoDecisionError:
    return NoDecisionError(
        ErrorReason.UPLOAD_PROTOCOL, message, remedy="Send one header, then chunks."
    )


class _ProgressFeed:
    """Progress on its way from the thread that works to the call that tells it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[wire.Progress | None] = asyncio.Queue()
        self._stage = ""
        self._told = 0.0

    def report(self, stage: str, fraction: float) -> None:
        """Takes progress from any thread."""
        if self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self._take, stage, fraction)

    def close(self, _: asyncio.Future[Verdict]) -> None:
        """Ends the iteration after what is there already."""
        self._queue.put_nowait(None)

    def _take(self, stage: str, fraction: float) -> None:
        if stage == self._stage and fraction < min(1.0, self._told + SMALLEST_STEP):
            return
        self._stage, self._told = stage, fraction
        self._queue.put_nowait(wire.Progress(stage=stage, fraction=fraction))

    def __aiter__(self) -> _ProgressFeed:
        return self

    async def __anext__(self) -> wire.Progress:
        progress = await self._queue.get()
        if progress is None:
            raise StopAsyncIteration
        return progress
