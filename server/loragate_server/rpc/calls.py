"""`Calls`: the methods of the API for callers who do not come over gRPC."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import grpc


class CallContext(Protocol):
    """What interceptors and services need of `grpc.aio.ServicerContext`."""

    def peer(self) -> str:
        """Who is at the other end, as gRPC writes it: `ipv4:10.0.0.1:41233`."""
        ...

    def invocation_metadata(self) -> Sequence[tuple[str, str]]:
        """What the caller sent beside the request; names in small letters."""
        ...

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        """What the connection proves of the caller."""
        ...

    def time_remaining(self) -> float | None:
        """Seconds that the caller still waits."""
        ...

    def code(self) -> grpc.StatusCode:
        """How the call has ended."""
        ...

    def set_trailing_metadata(self, metadata: Sequence[tuple[str, str | bytes]]) -> None:
        """What goes with the answer."""
        ...

    async def abort(
        self, code: grpc.StatusCode, details: str, trailing_metadata: Sequence[tuple[str, Any]]
    ) -> None:
        """Ends the call; raises grpc.aio.AbortError."""
        ...

    async def write(self, message: Any) -> None:
        """Sends one of several answers."""
        ...


@dataclass(frozen=True)
class _Details:
    """What an interceptor looks at before there is a call."""

    method: str


class Calls:
    """Methods behind interceptors, as a server of gRPC has them, without its port.

    Takes the place of a server where services are registered.

    Args:
        interceptors: the outermost first; not those of another server, for they keep what they have
            wrapped.
    """

    def __init__(self, interceptors: Sequence[grpc.aio.ServerInterceptor]) -> None:
        self._interceptors = tuple(interceptors)
        self._handlers: dict[str, grpc.RpcMethodHandler] = {}

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Does nothing: the same methods are registered by name."""

    def add_registered_method_handlers(
        self, service: str, handlers: Mapping[str, grpc.RpcMethodHandler]
    ) -> None:
        """Takes the methods of a service."""
        self._handlers |= {f"/{service}/{name}": one for name, one in handlers.items()}

    async def call(self, method: str, messages: AsyncIterator[Any], context: CallContext) -> Any:
        """Answers a call; several answers go to `context.write`, and None comes back.

        No message is asked for before the caller is known, and nothing of one that there is no
        room for.

        Raises:
            grpc.aio.AbortError: there is no answer; the context was told why.
        """
        handler = await self._handler(method)
        answer = handler.stream_stream if handler.response_streaming else handler.stream_unary
        return await answer(messages, context)

    async def _handler(self, method: str, passed: int = 0) -> grpc.RpcMethodHandler:
        if passed == len(self._interceptors):
            return self._handlers.get(method)

        def onwards(_: Any) -> Awaitable[grpc.RpcMethodHandler]:
            return self._handler(method, passed + 1)

        return await self._interceptors[passed].intercept_service(onwards, _Details(method))
