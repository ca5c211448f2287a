"""Several interceptors as one: what they make of a method's handler is made once, not per call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc

Continue = Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler | None]]


class Chain(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Wraps handlers as the interceptors would one after the other.

    gRPC asks every interceptor about every call; ours look at a call only inside the handlers that
    they wrap, and wrap each method once. A method that does not exist is asked about each time.

    Args:
        interceptors: the outermost first; each wraps a method always alike, and the last one has
            their messages come as streams.
    """

    def __init__(self, interceptors: Sequence[grpc.aio.ServerInterceptor]) -> None:
        self._interceptors = tuple(interceptors)
        # One entry per method that the server implements.
        self._wrapped: dict[str, grpc.RpcMethodHandler] = {}

    async def intercept_service(
        self, continuation: Continue, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler | None:
        """The handler inside all of them, if there is one."""
        method = handler_call_details.method
        wrapped = self._wrapped.get(method)
        if wrapped is None:
            wrapped = await self._through(0, continuation, handler_call_details)
            if wrapped is not None:
                wrapped = self._wrapped[method] = _leaving_nothing(wrapped)
        return wrapped

    async def _through(
        self, passed: int, continuation: Continue, details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler | None:
        if passed == len(self._interceptors):
            return await continuation(details)

        def onwards(each: grpc.HandlerCallDetails) -> Awaitable[grpc.RpcMethodHandler | None]:
            return self._through(passed + 1, continuation, each)

        return await self._interceptors[passed].intercept_service(onwards, details)


def _leaving_nothing(handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
    """The handler, whose refusals do not keep their calls.

    gRPC keeps the error of `abort` with the call, and the error leads to every frame that it came
    through, which hold the call: some hundred objects for each refusal that only the collector of
    garbage finds, which then takes long when there is least time.
    """
    make, inner = (
        (grpc.stream_stream_rpc_method_handler, handler.stream_stream)
        if handler.response_streaming
        else (grpc.stream_unary_rpc_method_handler, handler.stream_unary)
    )

    async def behaviour(messages: Any, context: Any) -> Any:
        try:
            return await inner(messages, context)
        except grpc.aio.AbortError as aborted:
            aborted.__traceback__ = aborted.__context__ = None
            del messages, context
            raise

    return make(behaviour, handler.request_deserializer, handler.response_serializer)
