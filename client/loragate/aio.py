# client.py is made from this file by scripts/sync_client.py.
"""The client for programs with an event loop."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar, Unpack

import grpc

from loragate._async import GRPC, INTERCEPTORS, audit_call, audit_file_call, each, sleep
from loragate._call import Attempts, Call
from loragate._channel import Connection, call_metadata
from loragate._core import Core
from loragate._signed.keys import Signers, trusted
from loragate._status import error_from
from loragate._trace import CallSpan
from loragate.config import (
    CLOCK_SKEW_S,
    ClientConfig,
    OnUnavailable,
    TlsConfig,
    Token,
    check_interceptors,
    resolve_target,
)
from loragate.errors import AuditError, Internal
from loragate.listing import ListOptions
from loragate.many import DEFAULT_CONCURRENCY, Audited
from loragate.reference import AdapterReference, AuditOptions, Source
from loragate.results import AuditResult, Concept, Progress
from loragate.retries import RetryPolicy

T = TypeVar("T")


class AsyncAuditClient:
    """Asks the service whether LoRA adapters may be loaded. For asyncio; keep one per event loop.

    Example:
        async with AsyncAuditClient("127.0.0.1:50051") as client:
            result = await client.audit_file("style.safetensors", strength=0.8)
            if result.allowed:
                load(result.audited_bytes)

    Args:
        target: "host:port", "dns:///service:port" or "unix:/run/loragate.sock"; else the
            environment variable LORAGATE_TARGET; else 127.0.0.1:50051.
        tls: certificates; None speaks in the clear, for this machine and service meshes.
        token: bearer token, or a function that returns the present one.
        timeout: seconds for each call that names none; None for each method's own default.
        on_unavailable: what `audit` does when no decision can be had because the service cannot
            be reached, has no room, or the deadline passed: give a result that says BLOCK, give
            one that says ALLOW (counted by `loragate.fail_open_total`), or raise. "allow" covers
            less: a service that has no room refuses, and a path or URI may itself be what is late.
        service, tenant: who asks, for the decision log.
        clock_skew: seconds by which the clocks of client and service may be apart, when it is
            judged whether a verdict has run out.
        require_signature: believe only verdicts that one of these keys has signed: a file with
            public keys (PEM or a JSON Web Key Set), several, or `loragate.signed.TrustedKeys`.
            Needs the extra `signed`.
        accept_signed: folder with signed verdicts (`*.json`) from elsewhere. Where one of them
            allows exactly what is asked about bytes at hand, nobody is asked. Such questions have
            to name `expected_base_digest`.
        retry: how often a call is made, `loragate.RetryPolicy`; None for the SDK's own ways.
        interceptors: client interceptors of gRPC, the first outermost; each attempt passes them,
            token and all. What they raise reaches the caller.
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
        require_signature: Signers | None = None,
        accept_signed: str | os.PathLike[str] | None = None,
        retry: RetryPolicy | None = None,
        interceptors: Sequence[Any] = (),
    ) -> None:
        self._set_up(
            ClientConfig(
                resolve_target(target),
                tls,
                token,
                timeout,
                on_unavailable,
                service,
                tenant,
                clock_skew,
                require_signature=None if require_signature is None else trusted(require_signature),
                accept_signed=None if accept_signed is None else Path(accept_signed),
                retry=retry,
                interceptors=tuple(interceptors),
            )
        )

    @classmethod
    def _of(cls, config: ClientConfig) -> Self:
        """A client whose messages call the settings by the names that the config has for them."""
        client = cls.__new__(cls)
        client._set_up(config)
        return client

    def _set_up(self, config: ClientConfig) -> None:
        check_interceptors(config.interceptors, INTERCEPTORS)
        self._core = Core(config)
        self._connection = Connection(config, GRPC)
        self.concepts = AsyncConcepts(self)

    async def audit(
        self, adapters: Source | Sequence[Source], **options: Unpack[AuditOptions]
    ) -> AuditResult:
        """Decides whether adapters may be loaded; several are those that will be active together.

        Text is a path or URI that the SERVER reads; for a file on this machine use `audit_file`.

        Args:
            adapters: path, URI, bytes or `AdapterReference`, or a sequence of them.
            **options: see `AuditOptions`.

        Raises:
            AuditError: no decision exists, and `on_unavailable` does not cover the cause.
            ValueError: the arguments contradict each other.
        """
        return await self._send(await audit_call(self._core, adapters, options))

    async def audit_file(
        self, path: str | os.PathLike[str], **options: Unpack[AuditOptions]
    ) -> AuditResult:
        """As `audit`, for a file on this machine, which is read once.

        Load `result.audited_bytes` rather than the file, which may have changed since.

        Raises:
            OSError: the file cannot be read.
        """
        return await self._send(await audit_file_call(self._core, path, options))

    async def audit_stored(
        self, adapters: Sequence[AdapterReference], **options: Unpack[AuditOptions]
    ) -> AuditResult:
        """As `audit`, of bytes that the service holds already: it is asked by their digests.

        So a question fits into one message, however large its adapters are together.

        Args:
            adapters: each with `data`, of which only the digest is sent.
            **options: see `AuditOptions`.

        Raises:
            AuditError: no decision exists; the reason is ADAPTER_NOT_STORED where the service does
                not hold one of them, and `audit` of it alone has it stored.
            ValueError: an adapter has no bytes.
        """
        return await self._send(self._core.audit_stored(adapters, **options))

    def audit_many(
        self,
        adapters: Iterable[Source],
        *,
        concurrency: int = DEFAULT_CONCURRENCY,
        **options: Unpack[AuditOptions],
    ) -> AsyncIterator[Audited]:
        """As `audit`, for many adapters, each asked about alone; yields answers as they come.

        An adapter about which no decision exists ends nothing: `Audited.error` says why. The next
        adapter is taken from `adapters` when there is room for it, 1 to 64 at a time.

        Raises:
            ValueError: the arguments contradict each other.
        """
        return each(self.audit, adapters, concurrency, options)

    def audit_files(
        self,
        paths: Iterable[str | os.PathLike[str]],
        *,
        concurrency: int = DEFAULT_CONCURRENCY,
        **options: Unpack[AuditOptions],
    ) -> AsyncIterator[Audited]:
        """As `audit_many`, for files on this machine; so many are in memory at a time."""
        told = (AuditError, OSError, ValueError)  # the last is said of what is no regular file
        return each(self.audit_file, paths, concurrency, options, told)

    async def watch(
        self, adapters: Source | Sequence[Source], **options: Unpack[AuditOptions]
    ) -> AsyncIterator[Progress | AuditResult]:
        """As `audit`; yields progress while the audit runs and the result at its end."""
        call = self._core.watch(adapters, **options)
        if call.known is not None:
            yield call.known
            return
        attempts, span = Attempts(call), self._span(call)
        last: object = None
        pause: float | None = 0.0
        try:
            while pause is not None:
                await sleep(pause)
                heard = False
                metadata = call_metadata(self._core.config, span, call.metadata)
                stream = self._connection.method(call.name)(
                    call.request(), timeout=attempts.begin(), metadata=metadata
                )
                try:
                    async for event in stream:
                        heard = True
                        item = last = call.read(event)
                        yield item
                        if isinstance(item, AuditResult):
                            return
                except grpc.RpcError as failure:
                    last = error = error_from(failure, call.operation, self._core.config)
                else:
                    raise Internal("The stream ended without a verdict.", operation=call.operation)
                finally:
                    stream.cancel()
                # Nobody is told twice that the audit begins.
                pause = None if heard else attempts.pause_after(error)
            yield attempts.settle(error)
        finally:
            span.end(last)

    async def get(self, decision_id: str, *, timeout: float | None = None) -> AuditResult:
        """Returns a recorded decision.

        Raises:
            NotFound: there is no such decision.
        """
        return await self._send(self._core.get(decision_id, timeout))

    async def list(self, **options: Unpack[ListOptions]) -> AsyncIterator[AuditResult]:
        """Yields recorded decisions, newest first; asks for the next page when it is needed.

        Args:
            **options: see `ListOptions`.

        Raises:
            ValueError: a digest that no adapter can have, or a moment without a timezone.
        """
        token = ""
        while True:
            page = await self._send(self._core.list_page(token, **options))
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

    def _span(self, call: Call[T]) -> CallSpan:
        return CallSpan(call.method, call.operation, self._core.config.target)

    async def _send(self, call: Call[T]) -> T:
        if call.known is not None:
            return call.known
        span = self._span(call)
        outcome: object = None
        try:
            outcome = result = await self._sent(Attempts(call), span)
        except Exception as error:
            outcome = error
            raise
        else:
            return result
        finally:
            span.end(outcome)

    async def _sent(self, attempts: Attempts[T], span: CallSpan) -> T:
        while True:
            call = attempts.call
            method = self._connection.method(call.name)
            metadata = call_metadata(self._core.config, span, call.metadata)
            try:
                return call.read(
                    await method(call.request(), timeout=attempts.begin(), metadata=metadata)
                )
            except grpc.RpcError as failure:
                error = error_from(failure, call.operation, self._core.config)
            pause = attempts.pause_after(error)
            if pause is None:
                return attempts.settle(error)
            await sleep(pause)


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
        """Returns one concept.

        Raises:
            NotFound: there is no such concept.
        """
        return await self._client._send(self._core.concept_get(concept_id, timeout))

    async def create(
        self, concept: Concept, pictures: Iterable[bytes], *, timeout: float | None = None
    ) -> Concept:
        """Adds a concept with its reference pictures: PNG, JPEG or WebP files of at most 3 MiB."""
        return await self._client._send(self._core.concept_create(concept, pictures, timeout))

    async def delete(self, concept_id: str, *, timeout: float | None = None) -> str:
        """Removes a concept; returns the digest of the library without it."""
        return await self._client._send(self._core.concept_delete(concept_id, timeout))
