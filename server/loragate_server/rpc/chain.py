"""Several interceptors as one: what they make of a method's handler is made once, not per call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import grpc

Continue = Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler | None]]


class Chain(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Wraps handlers as the interceptors would one after the other.

    gRPC asks every interceptor about every call; ours look at a call only inside the handlers that
    they wrap, and wrap each method once. A method that does not exist is asked about each time.

    Args:
        interceptors: the outermost first; each wraps a method always alike.
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
                self._wrapped[method] = wrapped
        return wrapped

    async def _through(
        self, passed: int, continuation: Continue, details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler | None:
        if passed == len(self._interceptors):
            return await continuation(details)

        def onwards(each: grpc.HandlerCallDetails) -> Awaitable[grpc.RpcMethodHandler | None]:
            return self._through(passed + 1, continuation, each)

        return await self._interceptors[passed].intercept_service(onwards, details)
