"""The API as JSON: over real rooms without a model, and by a whole server."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from loragate_server.config.listen import GrpcPort, Listen
from loragate_server.metrics.metrics import Metrics
from loragate_server.rest.door import RestDoor
from loragate_server.testing import ServerProcess
from loragate_server.web.readiness import Readiness
from loragate_server.web.server import WebServer
from testkit.servers import forked_server
from tests.server.rpc.conftest import Front, Serve, serve

__all__ = ["serve"]

ADAPTERS = Path(__file__).parents[3] / "examples" / "adapters"
JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Rest:
    """The door on an HTTP port, and the gRPC front behind it."""

    http: aiohttp.ClientSession
    address: str
    front: Front

    async def ask(self, method: str, path: str, **options: Any) -> tuple[int, Any, Any]:
        """Status, document and headers of an answer."""
        async with self.http.request(method, path, **options) as response:
            return response.status, await response.json(content_type=None), response.headers


Open = Callable[..., Awaitable[Rest]]


@pytest.fixture
async def rest(serve: Serve) -> AsyncIterator[Open]:
    async with AsyncExitStack() as stack:

        async def start(
            port: GrpcPort | None = None,
            public_url: str = "",
            *,
            closed: bool = False,
            **settings: Any,
        ) -> Rest:
            port = port or GrpcPort(listen=Listen(grpc="127.0.0.1:0", http="127.0.0.1:0"))
            front = await serve(port, **settings)
            door = RestDoor(port, public_url)
            server = WebServer("127.0.0.1:0", Metrics().registry, Readiness([]))
            server.mount_api(door)
            if not closed:
                door.open(front.server.calls)
            address = await server.start()
            stack.push_async_callback(server.close)
            session = aiohttp.ClientSession(f"http://{address}")
            await stack.enter_async_context(session)
            return Rest(session, address, front)

        yield start


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder from which the server may read, with the shipped adapters in it."""
    folder = tmp_path_factory.mktemp("adapters")
    shutil.copytree(ADAPTERS, folder, dirs_exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Iterator[ServerProcess]:
    settings = {"LORAGATE_INTAKE__ROOTS": f'["{root}"]'}
    with forked_server(tmp_path_factory.mktemp("state"), settings) as process:
        yield process
