"""Interceptors in a chain wrap each method once, and a method that does not exist every time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from loragate_server.rpc.chain import Chain


@dataclass(frozen=True)
class Details:
    method: str


class Counting(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Names itself in the handler that it wraps."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.asked: list[str] = []

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        self.asked.append(handler_call_details.method)
        inner = await continuation(handler_call_details)
        return None if inner is None else named(lambda: f"{self.name}({asked_of(inner)})")


def named(name: Callable[[], str]) -> grpc.RpcMethodHandler:
    """A handler that answers with its name."""

    def behaviour(messages: Any, context: Any) -> Any:
        async def answer() -> str:
            return name()

        return answer()

    return grpc.stream_unary_rpc_method_handler(behaviour)


def asked_of(handler: grpc.RpcMethodHandler) -> str:
    """What a handler answers."""
    try:
        handler.stream_unary(None, None).send(None)
    except StopIteration as ended:
        return str(ended.value)
    pytest.fail("the answer waits")


async def known(details: Details) -> grpc.RpcMethodHandler | None:
    return None if details.method == "/none" else named(lambda: f"handler of {details.method}")


@pytest.mark.asyncio
async def test_the_first_interceptor_is_the_outermost() -> None:
    outer, inner = Counting("outer"), Counting("inner")
    chain = Chain([outer, inner])
    for _ in range(3):
        found = await chain.intercept_service(known, Details("/a"))
        assert asked_of(found) == "outer(inner(handler of /a))"
    found = await chain.intercept_service(known, Details("/b"))
    assert asked_of(found) == "outer(inner(handler of /b))"
    assert outer.asked == inner.asked == ["/a", "/b"]


@pytest.mark.asyncio
async def test_a_method_that_does_not_exist_is_asked_about_each_time() -> None:
    outer = Counting("outer")
    chain = Chain([outer])
    for _ in range(3):
        assert await chain.intercept_service(known, Details("/none")) is None
    assert len(outer.asked) == 3
