"""A fake service, and one way of speaking to both clients."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from loragate import AsyncAuditClient, AuditClient
from loragate.testing import FakeAuditServer


class AnyClient:
    """Either client; every method is awaited, every iterator is collected."""

    def __init__(self, client: AuditClient | AsyncAuditClient) -> None:
        self.client = client

    async def call(self, name: str, *args: Any, **options: Any) -> Any:
        target: Any = self.client
        for part in name.split("."):
            target = getattr(target, part)
        answer = target(*args, **options)
        return await answer if inspect.isawaitable(answer) else answer

    async def collect(self, name: str, *args: Any, **options: Any) -> list[Any]:
        answer = await self.call(name, *args, **options)
        if hasattr(answer, "__aiter__"):
            return [item async for item in answer]
        return list(answer)

    async def audit(self, *args: Any, **options: Any) -> Any:
        return await self.call("audit", *args, **options)


@pytest.fixture
def fake() -> Iterator[FakeAuditServer]:
    with FakeAuditServer() as server:
        yield server


@pytest.fixture(params=[AuditClient, AsyncAuditClient], ids=["sync", "async"])
async def make_client(request: pytest.FixtureRequest) -> AsyncIterator[Callable[..., AnyClient]]:
    made = []

    def make(target: str, **options: Any) -> AnyClient:
        client = AnyClient(request.param(target, **options))
        made.append(client)
        return client

    yield make
    for client in made:
        await client.call("close")


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asks again at once, for tests in which only what is made of the answers matters."""
    monkeypatch.setattr("loragate._service_config.RetryPolicy.pause_s", lambda *_: 0.0)


@pytest.fixture
def client(make_client: Callable[..., AnyClient], fake: FakeAuditServer) -> AnyClient:
    return make_client(fake.target, on_unavailable="raise")
