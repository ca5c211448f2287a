"""The client for programs with an event loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Self, TypeVar, Unpack

import grpc

from loragate._call import Attempts, Call
from loragate._channel import Connection, call_metadata
from loragate._core import Core
from loragate._status import error_from
from loragate.config import (
    CLOCK_SKEW_S,
    ClientConfig,
    OnUnavailable,
    TlsConfig,
    Token,
    resolve_target,
)
from loragate.errors import Internal
from loragate.reference import INLINE_LIMIT_BYTES, AuditOptions, Source
from loragate.results import AuditResult, Concept, Progress, Verdict

T = TypeVar("T")


class AsyncAuditClient:
    """As `AuditClient`, with coroutines. Keep one per event loop.

    Example:
        async with AsyncAuditClient("127.0.0.1:50051") as client:
            result = await client.audit_file("style.safetensors", strength=0.8)
            if result.allowed:
                load(result.audited_bytes)

    The arguments are those of `AuditClient`.
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        tls: TlsConfig | None = None,
        token: Token | None = None,
        timeout: float | None = None,
        on_unavailable: OnUnavailable = "block",
        service: str = "",
        tenant: str = "",
        clock_skew: float = CLOCK_SKEW_S,
    ) -> None:
        config = ClientConfig(
            resolve_target(target),
            tls,
            token,
            timeout,
            on_unavailable,
            service,
            tenant,
            clock_skew,
        )
        self._core = Core(config)
        self._connection = Connection(config, asynchronous=True)
        self.concepts = AsyncConcepts(self)

    async def audit(
        self, adapters: Source | Sequence[Source], **options: Unpack[AuditOptions]
    ) -> AuditResult:
        """Decides whether adapters may be loaded; see `AuditClient.audit`."""
        if isinstance(adapters, bytes) and len(adapters) > INLINE_LIMIT_BYTES:
            # Hashing many bytes takes long enough to hold up the loop.
            call = await asyncio.to_thread(self._core.audit, adapters, **options)
        else:
            call = self._core.audit(adapters, **options)
        return await self._send(call)

    async def audit_file(
        self, path: str | os.PathLike[str], **options: Unpack[AuditOptions]
    ) -> AuditResult:
        """As `audit`, for a file on this machine; see `AuditClient.audit_file`."""
        call = await asyncio.to_thread(self._core.audit_file, path, **options)
        return await self._send(call)

    async def watch(
        self, adapters: Source | Sequence[Source], **options: Unpack[AuditOptions]
    ) -> AsyncIterator[Progress | AuditResult]:
        """As `audit`; yields progress while the audit runs and the result at its end."""
        call = self._core.watch(adapters, **options)
        attempts = Attempts(call)
        pause: float | None = 0.0
        while pause is not None:
            await asyncio.sleep(pause)
            heard = False
            stream = self._connection.method(call.name)(
                call.request(), timeout=attempts.begin(), metadata=call_metadata(self._core.config)
            )
            try:
                async for event in stream:
                    heard = True
                    item = call.read(event)
                    yield item
                    if isinstance(item, AuditResult):
                        return
            except grpc.RpcError as failure:
                error = error_from(failure, call.operation)
            else:
                raise Internal("The stream ended without a verdict.", operation=call.operation)
            finally:
                stream.cancel()
            # Nobody is told twice that the audit begins.
            pause = None if heard else attempts.pause_after(error)
        yield attempts.settle(error)

    async def get(self, decision_id: str, *, timeout: float | None = None) -> AuditResult:
        """Returns a recorded decision; see `AuditClient.get`."""
        return await self._send(self._core.get(decision_id, timeout))

    async def list(
        self,
        *,
        adapter_sha256: str = "",
        verdict: Verdict | None = None,
        page_size: int = 50,
        timeout: float | None = None,
    ) -> AsyncIterator[AuditResult]:
        """Yields recorded decisions, newest first; see `AuditClient.list`."""
        token = ""
        while True:
            page = await self._send(
                self._core.list_page(
                    token,
                    adapter_sha256=adapter_sha256,
                    verdict=verdict,
                    page_size=page_size,
                    timeout=timeout,
                )
            )
            for item in page.items:
                yield item
            token = page.next_token
            if not token:
                return

    async def close(self) -> None:
        """Closes the connection and ends the calls in flight. May be called twice."""
        channel = self._connection.take_for_closing()
        if channel is not None:
            await channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def _send(self, call: Call[T]) -> T:
        attempts = Attempts(call)
        while True:
            call = attempts.call
            method = self._connection.method(call.name)
            metadata = call_metadata(self._core.config)
            try:
                return call.read(
                    await method(call.request(), timeout=attempts.begin(), metadata=metadata)
                )
            except grpc.RpcError as failure:
                error = error_from(failure, call.operation)
            pause = attempts.pause_after(error)
            if pause is None:
                return attempts.settle(error)
            await asyncio.sleep(pause)


class AsyncConcepts:
    """The concept library of the service; `AsyncAuditClient.concepts`."""

    def __init__(self, client: AsyncAuditClient) -> None:
        self._client = client
        self._core = client._core

    async def list(
        self, *, page_size: int = 50, timeout: float | None = None
    ) -> AsyncIterator[Concept]:
        """Yields the concepts, ordered by id."""
        token = ""
        while True:
            page = await self._client._send(
                self._core.concept_page(token, page_size=page_size, timeout=timeout)
            )
            for item in page.items:
                yield item
            token = page.next_token
            if not token:
                return

    async def get(self, concept_id: str, *, timeout: float | None = None) -> Concept:
        """Returns one concept; see `Concepts.get`."""
        return await self._client._send(self._core.concept_get(concept_id, timeout))

    async def create(
        self, concept: Concept, pictures: Iterable[bytes], *, timeout: float | None = None
    ) -> Concept:
        """Adds a concept with its reference pictures; see `Concepts.create`."""
        return await self._client._send(self._core.concept_create(concept, pictures, timeout))

    async def delete(self, concept_id: str, *, timeout: float | None = None) -> str:
        """Removes a concept; returns the digest of the library without it."""
        return await self._client._send(self._core.concept_delete(concept_id, timeout))
