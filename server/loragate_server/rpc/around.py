"""Server interceptors that wrap a call of any kind in a context manager."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, aclosing
from typing import Any

import grpc

Guard = Callable[[grpc.aio.ServicerContext], AbstractContextManager[None]]
Failed = Callable[[grpc.aio.ServicerContext, Exception], Awaitable[None]]


class AroundInterceptor(grpc.aio.ServerInterceptor, ABC):  # type: ignore[misc]
    """Runs every call inside `around`, streaming or not.

    The context manager is a plain one: an asynchronous one costs several microseconds a call. What
    has to wait when a call fails goes into `failed`.
    """

    def __init__(self) -> None:
        # One entry per method that the server implements.
        self._wrapped: dict[str, grpc.RpcMethodHandler] = {}

    @abstractmethod
    def around(
        self, method: str, context: grpc.aio.ServicerContext
    ) -> AbstractContextManager[None]:
        """What happens before, after and around a call of "/package.Service/Method"."""

    async def failed(self, context: grpc.aio.ServicerContext, error: Exception) -> None:
        """What happens when the call has raised `error`, which goes on upwards after it."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler | None:
        """Wraps the handler of the method, if there is one."""
        method = handler_call_details.method
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        wrapped = self._wrapped.get(method)
        if wrapped is None:
            wrapped = _wrap(handler, lambda context: self.around(method, context), self.failed)
            self._wrapped[method] = wrapped
        return wrapped


async def answered(result: Any, context: grpc.aio.ServicerContext) -> Any:
    """The answer that a handler has begun to give, or None after all of several were sent."""
    if inspect.isawaitable(result):
        return await result  # one answer; or the servicer writes by itself, as the health one
    async with aclosing(result) as messages:
        async for message in messages:
            await context.write(message)
    return None


def _wrap(handler: grpc.RpcMethodHandler, guard: Guard, failed: Failed) -> grpc.RpcMethodHandler:
    """The handler inside `guard`, of the same kind."""
    if handler.response_streaming:
        if handler.request_streaming:
            behaviour: Callable[..., Any] = _streaming(handler.stream_stream, guard, failed)
            return _make(grpc.stream_stream_rpc_method_handler, behaviour, handler)
        behaviour = _streaming(handler.unary_stream, guard, failed)
        return _make(grpc.unary_stream_rpc_method_handler, behaviour, handler)
    if handler.request_streaming:
        behaviour = _single(handler.stream_unary, guard, failed)
        return _make(grpc.stream_unary_rpc_method_handler, behaviour, handler)
    behaviour = _single(handler.unary_unary, guard, failed)
    return _make(grpc.unary_unary_rpc_method_handler, behaviour, handler)


def _make(factory: Any, behaviour: Any, handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
    return factory(behaviour, handler.request_deserializer, handler.response_serializer)


def _single(inner: Any, guard: Guard, failed: Failed) -> Callable[..., Awaitable[Any]]:
    async def behaviour(request: Any, context: grpc.aio.ServicerContext) -> Any:
        try:
            with guard(context):
                return await inner(request, context)
        except Exception as error:
            await failed(context, error)
            raise

    return behaviour


def _streaming(inner: Any, guard: Guard, failed: Failed) -> Callable[..., Awaitable[None]]:
    # Written from here, not yielded: a generator whose caller has gone is closed by the event loop,
    # in another context, and what `guard` has set there could not be taken back.
    async def behaviour(request: Any, context: grpc.aio.ServicerContext) -> None:
        try:
            with guard(context):
                await answered(inner(request, context), context)
        except Exception as error:
            await failed(context, error)
            raise

    return behaviour
