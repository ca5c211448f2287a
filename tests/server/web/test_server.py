from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest

from loragate_server.metrics.metrics import Metrics
from loragate_server.web.readiness import Readiness
from loragate_server.web.server import WebServer
from testkit.waiting import at_most

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
async def readiness() -> Readiness:
    return Readiness(["models", "policy"])


@pytest.fixture
async def http(metrics: Metrics, readiness: Readiness) -> AsyncIterator[aiohttp.ClientSession]:
    server = WebServer("127.0.0.1:0", metrics.registry, readiness)
    address = await server.start()
    async with aiohttp.ClientSession(f"http://{address}") as session:
        yield session
    await server.close()


async def test_it_is_alive_before_it_is_ready(http: aiohttp.ClientSession) -> None:
    async with http.get("/healthz") as response:
        assert response.status == 200
        assert await response.json() == {"alive": True}
    async with http.get("/readyz") as response:
        assert response.status == 503
        assert (await response.json())["ready"] is False


async def test_readiness_names_the_part_that_is_not_ready(
    http: aiohttp.ClientSession, readiness: Readiness
) -> None:
    readiness.set("policy")
    readiness.set("models", "loading, 40 %")
    async with http.get("/readyz") as response:
        parts = (await response.json())["parts"]
    assert parts == {"models": "loading, 40 %", "policy": "ok"}


async def test_it_is_ready_when_all_parts_are_and_not_while_it_drains(
    http: aiohttp.ClientSession, readiness: Readiness
) -> None:
    readiness.set("policy")
    readiness.set("models")
    async with http.get("/readyz") as response:
        assert response.status == 200
    readiness.drain()
    async with http.get("/readyz") as response:
        assert response.status == 503
        assert (await response.json())["parts"]["server"] == "draining"


async def test_what_one_should_know_is_told_and_makes_it_no_less_ready(
    http: aiohttp.ClientSession, readiness: Readiness
) -> None:
    notes = {"calibration of one": "ok"}
    readiness.follow_notes(lambda: notes)
    readiness.set("policy")
    readiness.set("models")
    for state in ("ok", "uncalibrated: fox"):
        notes["calibration of one"] = state
        async with http.get("/readyz") as response:
            told = await response.json()
        assert (response.status, told["ready"]) == (200, True)
        assert told["notes"] == {"calibration of one": state}


async def test_a_check_that_fails_makes_it_not_ready_until_it_holds_again(
    readiness: Readiness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loragate_server.web.readiness._CHECK_EVERY_S", 0.0)
    works = False

    def check() -> None:
        if not works:
            raise OSError("the disk is full")

    readiness.set("models")
    readiness.set("policy")
    readiness.add_check("decision log", check)
    ready, parts = await readiness.report()
    assert not ready
    assert parts["decision log"] == "the disk is full"
    works = True
    assert (await readiness.report())[0]


async def test_a_check_that_hangs_makes_it_not_ready(
    readiness: Readiness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loragate_server.web.readiness._CHECK_TIMEOUT_S", 0.05)
    let_go = threading.Event()
    readiness.add_check("database", lambda: let_go.wait(10) and None)
    try:
        ready, parts = await readiness.report()
    finally:
        let_go.set()
    assert not ready
    assert parts["database"] == "no answer in 0.05 s"


async def test_checks_that_hang_cost_one_thread_each_however_often_they_are_asked(
    readiness: Readiness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loragate_server.web.readiness._CHECK_TIMEOUT_S", 0.5)
    monkeypatch.setattr("loragate_server.web.readiness._CHECK_EVERY_S", 0.0)
    let_go = threading.Event()
    for part in ("log", "database"):
        readiness.add_check(part, lambda: let_go.wait(30) and None)
    readiness.add_check("worker", lambda: None)
    before = threading.active_count()
    began = time.monotonic()
    try:
        for _ in range(40):
            _, parts = await readiness.report()
            assert parts["log"] == parts["database"] == "no answer in 0.5 s"
            assert parts["worker"] == "ok"
    finally:
        let_go.set()
    assert time.monotonic() - began < at_most(1.5)  # only the first one waits
    assert threading.active_count() - before <= 3
    await asyncio.sleep(0.05)
    assert (await readiness.report())[1]["log"] == "ok"


async def test_what_a_check_said_too_late_is_not_taken_for_now(
    readiness: Readiness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loragate_server.web.readiness._CHECK_TIMEOUT_S", 0.05)
    monkeypatch.setattr("loragate_server.web.readiness._CHECK_EVERY_S", 0.0)
    let_go, works = threading.Event(), True

    def check() -> None:
        worked = works
        if not let_go.is_set():
            let_go.wait(30)
        if not worked:
            raise OSError("gone")

    readiness.add_check("database", check)
    assert (await readiness.report())[1]["database"] == "no answer in 0.05 s"
    works = False
    let_go.set()
    await asyncio.sleep(0.05)
    assert (await readiness.report())[1]["database"] == "gone"


async def test_metrics_and_liveness_are_served_while_everything_else_hangs(
    http: aiohttp.ClientSession, readiness: Readiness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loragate_server.web.readiness._CHECK_TIMEOUT_S", 0.05)
    let_go = threading.Event()
    for number in range(50):
        readiness.add_check(f"part {number}", lambda: let_go.wait(30) and None)
    # Console pages and look-ups wait for a database on the threads of the loop.
    hanging = [asyncio.ensure_future(asyncio.to_thread(let_go.wait, 30)) for _ in range(64)]
    try:
        for _ in range(5):
            for path, status in (("/readyz", 503), ("/metrics", 200), ("/healthz", 200)):
                async with asyncio.timeout(5), http.get(path) as response:
                    assert response.status == status
    finally:
        let_go.set()
        await asyncio.gather(*hanging)


async def test_many_who_ask_at_once_cost_one_check(readiness: Readiness) -> None:
    asked = []
    readiness.add_check("database", lambda: asked.append(1))
    await asyncio.gather(*(readiness.report() for _ in range(50)))
    assert len(asked) == 1


async def test_metrics_come_as_text_or_as_openmetrics_as_asked(
    http: aiohttp.ClientSession, metrics: Metrics
) -> None:
    metrics.call_handled("/loragate.v1.AuditService/Audit", "OK", 0.1, "request-1")
    async with http.get("/metrics") as response:
        assert response.headers["Content-Type"].startswith("text/plain")
        text = await response.text()
    async with http.get("/metrics", headers={"Accept": OPENMETRICS}) as response:
        assert response.headers["Content-Type"].startswith("application/openmetrics-text")
        opened = await response.text()
    assert 'grpc_method="Audit"' in text
    assert "request-1" not in text
    assert "request-1" in opened
    assert opened.endswith("# EOF\n")


@pytest.mark.parametrize("path", ["/", "/debug", "/metrics/", "/healthz/../etc/passwd"])
async def test_nothing_else_is_served(http: aiohttp.ClientSession, path: str) -> None:
    async with http.get(path) as response:
        assert response.status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_nothing_can_be_changed(http: aiohttp.ClientSession, method: str) -> None:
    async with http.request(method, "/readyz") as response:
        assert response.status == 405


async def test_answers_name_no_software_and_are_not_cached(http: aiohttp.ClientSession) -> None:
    async with http.get("/healthz") as response:
        assert "Server" not in response.headers
        assert response.headers["Cache-Control"] == "no-store"


async def test_an_address_in_use_is_an_error_and_not_a_second_server(
    http: aiohttp.ClientSession, metrics: Metrics, readiness: Readiness
) -> None:
    taken = f"{http._base_url.host}:{http._base_url.port}"
    second = WebServer(taken, metrics.registry, readiness)
    with pytest.raises(OSError, match="in use"):
        await second.start()
    await second.close()


async def test_a_grpc_client_at_the_http_port_is_one_line_of_the_log(
    http: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    address = http._base_url
    assert address is not None
    reader, writer = await asyncio.open_connection(address.host, address.port)
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    await reader.read()
    writer.close()
    [record] = caplog.records
    assert (record.levelname, record.exc_info) == ("WARNING", None)
    assert "a gRPC client at the HTTP port?" in record.getMessage()
