"""The middleware before an application."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from loragate import AsyncAuditClient
from loragate.integrations.asgi import (
    LoragateMiddleware,
)
from loragate.testing import FakeAuditServer
from tests.client.asgi.application import App


@pytest.fixture
async def audits(fake: FakeAuditServer) -> AsyncIterator[AsyncAuditClient]:
    async with AsyncAuditClient(fake.target) as client:
        yield client


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
def guarded(app: App, audits: AsyncAuditClient) -> LoragateMiddleware:
    return LoragateMiddleware(app, routes={"/generate": None}, client=audits, max_body_bytes=1000)
