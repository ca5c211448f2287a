"""A stock Prometheus reads what the server says."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from loragate_server.config.schema import EMBEDDED_POLICY
from loragate_server.errors import ErrorReason
from loragate_server.metrics.metrics import Metrics
from loragate_server.policy.store import PolicyStore
from loragate_server.web.readiness import Readiness
from loragate_server.web.server import WebServer

pytestmark = [
    pytest.mark.needs("prometheus"),
    pytest.mark.skipif(
        shutil.which("prometheus") is None or shutil.which("promtool") is None,
        reason="prometheus is missing; scripts/install_test_tools.sh installs it",
    ),
]

CONFIG = """
global: {{scrape_interval: 250ms, scrape_timeout: 250ms}}
scrape_configs:
  - job_name: loragate
    static_configs: [{{targets: ["{target}"]}}]
"""


@pytest.fixture
async def metrics() -> Metrics:
    """Metrics that have seen a few events."""
    filled = Metrics()
    filled.failure(ErrorReason.PICKLE_REFUSED)
    filled.failure(ErrorReason.PICKLE_REFUSED)
    filled.stage_seconds("response", 0.4)
    filled.call_started("/loragate.v1.AuditService/Audit")
    filled.call_handled("/loragate.v1.AuditService/Audit", "OK", 0.4, "request-1")
    filled.follow_policy(PolicyStore(EMBEDDED_POLICY))
    filled.base_model("emoji-tiny", family="sd", digest="b" * 64, device="cpu", dtype="float32")
    filled.kernel_backend("reference")
    return filled


@pytest.fixture
async def target(metrics: Metrics) -> AsyncIterator[str]:
    server = WebServer("127.0.0.1:0", metrics.registry, Readiness([]))
    yield await server.start()
    await server.close()


async def test_promtool_finds_nothing_to_mend(target: str) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://{target}/metrics") as response,
    ):
        page = await response.read()
    checker = await asyncio.create_subprocess_exec(
        *("promtool", "check", "metrics"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await checker.communicate(page)
    assert said.decode() == ""
    assert checker.returncode == 0


async def test_prometheus_scrapes_the_page_with_its_exemplars(target: str, tmp_path: Path) -> None:
    async with prometheus(target, tmp_path) as api, aiohttp.ClientSession() as session:
        await until(session, f"{api}/query", {"query": 'up{job="loragate"} == 1'})
        refused = 'loragate_refusals_total{reason="PICKLE_REFUSED"} == 2'
        await until(session, f"{api}/query", {"query": refused})
        silent = 'loragate_refusals_total{reason="DISK_FULL"} == 0'
        await until(session, f"{api}/query", {"query": silent})
        series = "grpc_server_handling_seconds_bucket"
        wanted = {"query": series, "start": "0", "end": "99999999999"}
        found = await until(session, f"{api}/query_exemplars", wanted)
        assert found[0]["exemplars"][0]["labels"] == {"request_id": "request-1"}


@asynccontextmanager
async def prometheus(target: str, folder: Path) -> AsyncIterator[str]:
    """Runs a Prometheus that scrapes `target`; gives the address of its query API."""
    (folder / "prometheus.yml").write_text(CONFIG.format(target=target))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with (folder / "prometheus.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            "prometheus",
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--enable-feature=exemplar-storage",
            stdout=log,
            stderr=log,
        )
        try:
            yield f"http://127.0.0.1:{port}/api/v1"
        finally:
            process.terminate()
            await process.wait()


async def until(session: aiohttp.ClientSession, url: str, query: dict[str, str]) -> list[dict]:
    """The result of the query, once there is one."""
    last: object = None
    for _ in range(200):
        try:
            async with session.get(url, params=query) as response:
                last = await response.json()
        except aiohttp.ClientError as error:
            last = error
        else:
            data = last.get("data") or []
            result = data["result"] if isinstance(data, dict) else data
            if result:
                return result
        await asyncio.sleep(0.1)
    raise AssertionError(f"no result of {query} in 20 s; the last answer was {last}")
