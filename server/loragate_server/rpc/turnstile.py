"""`Turnstile`: how many calls are in at once, and how long one may owe its message."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.places import Place, Places
from loragate_server.progress import deadline_passed
from loragate_server.rpc.access import HOST, is_open, is_upload
from loragate_server.rpc.around import answered

HEALTH_CALLS = 128
"""Of health checks in flight. They have places of their own, so that no crowd of other calls, nor
one of those that watch, leaves a check unanswered."""

HEALTH_WATCHES = 512
"""Of health checks that watch: some clients hold one for each connection."""

SPARE_CALLS = 256 + HEALTH_CALLS + HEALTH_WATCHES
"""Calls that gRPC itself lets in beyond the places of others, so that each is told why."""

Continue = Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler | None]]


class Turnstile(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Gives every call a place for as long as it lasts.

    It comes after all other interceptors, for messages are read inside of it.

    On the wire a call with one message is a stream of one. It is taken as a stream here, for gRPC
    would wait for its message for ever, and nobody could end it.

    Args:
        max_calls: in flight at once, without health checks.
        idle_s: how long a call may owe its first message, and an upload its next one.
    """

    def __init__(self, max_calls: int, idle_s: float) -> None:
        self._calls = Places(max_calls)
        self._checks, self._watchers = Places(HEALTH_CALLS), Places(HEALTH_WATCHES)
        self._idle_s = idle_s
        # One entry per method that the server implements.
        self._wrapped: dict[str, grpc.RpcMethodHandler] = {}

    def beside(self) -> Turnstile:
        """Another way in, to the same places."""
        other = Turnstile(self._calls.limit, self._idle_s)
        other._calls, other._checks, other._watchers = self._calls, self._checks, self._watchers
        return other

    async def intercept_service(
        self, continuation: Continue, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler | None:
        """Wraps the handler of the method, if there is one."""
        method = handler_call_details.method
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        if method not in self._wrapped:
            self._wrapped[method] = self._wrap(handler, method)
        return self._wrapped[method]

    def _wrap(self, handler: grpc.RpcMethodHandler, method: str) -> grpc.RpcMethodHandler:
        inner = _streaming(handler)
        places = self._calls
        if is_open(method):
            places = self._watchers if handler.response_streaming else self._checks

        async def behaviour(messages: AsyncIterator[Any], context: Any) -> Any:
            call = _Call(messages, self._idle_s, every=is_upload(method))
            call.place = places.enter(host_of(context.peer()), call.give_up)
            if call.place is None:
                raise _full(places.limit)
            named = HOST.set(call.place.peer)
            try:
                return await inner(call, context)
            finally:
                HOST.reset(named)
                call.place.leave()

        make: Any = (
            grpc.stream_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.stream_unary_rpc_method_handler
        )
        return make(behaviour, handler.request_deserializer, handler.response_serializer)


class _Call:
    """The messages of a call, each waited for at most so long."""

    def __init__(self, messages: AsyncIterator[Any], idle_s: float, *, every: bool) -> None:
        self._source = messages
        self._messages: AsyncIterator[Any] | None = None
        self._idle_s = idle_s
        self._every = every
        self._begun = False
        self._waiter: asyncio.Task[Any] | None = None
        self._gave_up = False
        self.place: Place | None = None

    def give_up(self) -> None:
        """Ends the wait for a message: another call has taken the place."""
        self._gave_up = True
        if self._waiter is not None:
            self._waiter.cancel()

    def __aiter__(self) -> _Call:
        return self

    async def __anext__(self) -> Any:
        if self._begun and not self._every:
            return await self._one()
        assert self.place is not None  # noqa: S101 - the call is in
        self.place.waits()
        try:
            return await self._next()
        finally:
            self._begun = True
            self.place.works()

    async def _next(self) -> Any:
        if self._gave_up:
            raise _gave_up()
        self._waiter = asyncio.current_task()
        try:
            async with asyncio.timeout(self._idle_s):
                return await self._one()
        except TimeoutError:
            raise deadline_passed(
                f"Nothing came of the call for {self._idle_s:g} s.",
                "Send what is due without long pauses, or raise listen.idle_timeout_s.",
            ) from None
        except asyncio.CancelledError:
            task = self._waiter
            if self._gave_up and task is not None and not task.uncancel():
                raise _gave_up() from None
            raise
        finally:
            self._waiter = None

    async def _one(self) -> Any:
        # Begun no earlier: gRPC warns of a stream that is begun and never read.
        if self._messages is None:
            self._messages = aiter(self._source)
        return await anext(self._messages)


def host_of(peer: str) -> str:
    """The host of a gRPC peer such as `ipv4:10.0.0.1:41233`; a unix socket is one host."""
    return peer if peer.startswith("unix:") else peer.rpartition(":")[0]


def _streaming(handler: grpc.RpcMethodHandler) -> Callable[[Any, Any], Awaitable[Any]]:
    """The handler's behaviour, taking its one message from a stream too, and awaited to its end."""
    if handler.request_streaming:
        many = handler.stream_stream if handler.response_streaming else handler.stream_unary

        async def all_of_them(messages: AsyncIterator[Any], context: Any) -> Any:
            return await answered(many(messages, context), context)

        return all_of_them
    one = handler.unary_stream if handler.response_streaming else handler.unary_unary

    async def behaviour(messages: AsyncIterator[Any], context: Any) -> Any:
        request = await anext(messages, None)
        if request is None:
            raise NoDecisionError(
                ErrorReason.REQUEST_INVALID,
                "The call ended without a message.",
                remedy="Send the request.",
                metadata={"field": "request"},
            )
        return await answered(one(request, context), context)

    return behaviour


def _full(limit: int) -> NoDecisionError:
    return NoDecisionError(
        ErrorReason.QUEUE_FULL,
        f"{limit} calls are in flight already.",
        remedy="Ask again later, run more replicas, or raise listen.max_concurrent_calls.",
        metadata={"queue_limit": str(limit)},
        retry_after_s=1.0,
    )


def _gave_up() -> NoDecisionError:
    return NoDecisionError(
        ErrorReason.QUEUE_FULL,
        "Too many calls are in flight, and this one had sent nothing for longest.",
        remedy="Ask again later, and send what is due without pauses.",
        retry_after_s=1.0,
    )
