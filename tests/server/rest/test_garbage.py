"""What is asked over HTTP leaves nothing that waits for the collector of garbage either."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from loragate_server.config.listen import GrpcPort, Listen
from loragate_server.gate.library import LibraryKeeper
from loragate_server.metrics.metrics import Metrics
from loragate_server.rest.door import RestDoor
from loragate_server.rpc.observer import CallObserver
from loragate_server.rpc.server import RpcServer
from loragate_server.web.readiness import Readiness
from loragate_server.web.server import WebServer
from testkit.garbage import left_by
from testkit.libraries import embedded_library
from tests.server.gate.conftest import House, files, house, tiny

__all__ = ["files", "house", "tiny"]

STATUSES = {"new": 200, "known": 200, "broken": 400, "garbled": 400, "unknown": 404, "failing": 500}


@pytest.mark.parametrize("kind", STATUSES)
async def test_no_request_leaves_garbage(house: Callable[..., House], kind: str) -> None:
    here, numbers = house(), itertools.count()
    library = embedded_library()
    keeper = LibraryKeeper(
        library, here.gate.bases, here.gate.worker, lambda *_: pytest.fail("built")
    )
    port = GrpcPort(listen=Listen(grpc="127.0.0.1:0", http="127.0.0.1:0"))
    server = RpcServer(port, here.gate, keeper, here.recorder, CallObserver())
    web, door = WebServer("127.0.0.1:0", Metrics().registry, Readiness([])), RestDoor(port, "")
    web.mount_api(door)
    door.open(server.calls)
    address = await web.start()
    if kind == "failing":
        here.engine.error = RuntimeError("broken")

    async with aiohttp.ClientSession(f"http://{address}") as session:

        async def ask() -> None:
            seed = 0 if kind == "known" else next(numbers)
            data = b"no adapter" if kind == "broken" else here.files(seed)
            sent: dict[str, Any] = {
                "adapters": [{"inline_bytes": base64.b64encode(data).decode()}],
                **({"nonsense": 1} if kind == "garbled" else {}),
            }
            asked = (
                session.get("/v1/audits/none")
                if kind == "unknown"
                else session.post("/v1/audits", json=sent)
            )
            async with asked as answer:
                assert answer.status == STATUSES[kind], await answer.text()

        assert await left_by(ask) == {}
    await web.close()
    await server.stop()
