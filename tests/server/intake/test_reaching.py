"""Which addresses are connected to on a caller's word, and what a refusal gives away."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import trustme

from loragate_server.adapter.reference import AdapterReference
from loragate_server.config.intake import IntakeSection
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.gate.intake import IntakeDesk
from loragate_server.intake.fetch import Intake
from loragate_server.intake.reaching import may_reach
from loragate_server.progress import Leash
from testkit.waiting import at_most
from tests.server.intake.test_sources import GOOD, LOOPBACK, Handler, refused, web

__all__ = ["web"]

INTERNAL = (
    "127.0.0.1",
    "127.9.9.9",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "169.254.169.254",
    "224.0.0.1",
    "255.255.255.255",
    "::1",
    "::",
    "fe80::1%eth0",
    "fc00::1",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "2002:7f00:1::",
    "2001:0:7f00:1::",
    "::127.0.0.1",
    "::ffff:0:10.0.0.1",
    "fec0::1",
    "5f00::1",
    "3fff::1",
    "192.88.99.1",
)
Make = Callable[..., Intake]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def one(*networks: Any, **settings: Any) -> Intake:
        section = IntakeSection(
            reachable_networks=networks,
            fetch_timeout_s=1.0,
            **{"enabled_schemes": frozenset({"http"}), **settings},
        )
        return Intake(section, tmp_path / "store")

    return one


@pytest.mark.parametrize("address", INTERNAL)
def test_what_is_not_public_is_not_reached(address: str) -> None:
    assert not may_reach(address, ())


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1::1", "::ffff:8.8.8.8"])
def test_what_is_public_is_reached(address: str) -> None:
    assert may_reach(address, ())


def test_networks_that_the_operator_allows_are_reached_and_no_others() -> None:
    allowed = (ip_network("10.1.0.0/16"), ip_network("fc00::/7"))
    assert may_reach("10.1.2.3", allowed)
    assert may_reach("::ffff:10.1.2.3", allowed)
    assert may_reach("fc00::1", allowed)
    assert not may_reach("10.2.2.3", allowed)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "127.1", "0"])
def test_this_machine_is_not_asked_however_it_is_spelled(make: Make, web: str, host: str) -> None:
    port = web.rpartition(":")[2]
    error = refused(make(), f"http://{host}:{port}/good/adapter.safetensors")
    assert error.reason is ErrorReason.SOURCE_UNREADABLE
    assert Handler.asked == []


def test_a_redirection_to_an_internal_address_is_not_followed(make: Make, web: str) -> None:
    # The first address is allowed by itself; what it leads to is another host of this machine.
    with socket.create_server(("127.0.0.2", 0)) as inside:
        inside.settimeout(0.3)
        place = f"127.0.0.2:{inside.getsockname()[1]}/a"
        error = refused(make(ip_network("127.0.0.1/32")), f"{web}/to/{place}")
        with pytest.raises(TimeoutError):
            inside.accept()
    assert error.reason is ErrorReason.SOURCE_UNREADABLE
    assert Handler.asked[-1].startswith("/to/")


def test_a_redirection_within_what_is_allowed_is_followed(make: Make, web: str) -> None:
    place = web.removeprefix("http://") + "/good/adapter.safetensors"
    stored = make(LOOPBACK).fetch(AdapterReference(uri=f"{web}/to/{place}"), Leash())
    assert stored.path.read_bytes() == GOOD


@pytest.fixture
def secured(web: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The server of `web` behind TLS, by a certificate that the client trusts; its address."""
    ca = trustme.CA()
    own, theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    ca.issue_cert("127.0.0.1").configure_cert(own)
    ca.configure_trust(theirs)
    monkeypatch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", theirs)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = own.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"https://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_redirection_from_https_to_plain_http_is_not_followed(
    make: Make, web: str, secured: str
) -> None:
    place = web.removeprefix("http://") + "/good/adapter.safetensors"
    intake = make(LOOPBACK, enabled_schemes=frozenset({"https"}))
    error = refused(intake, f"{secured}/to/{place}")
    assert error.reason is ErrorReason.SOURCE_NOT_ENABLED
    assert "redirects to plain http" in error.message
    assert "intake.enabled_schemes" in error.remedy
    assert {path.removeprefix("HEAD ") for path in Handler.asked} == {f"/to/{place}"}
    plain = make(LOOPBACK, enabled_schemes=frozenset({"https", "http"}))
    assert plain.fetch(AdapterReference(uri=f"{secured}/to/{place}"), Leash()).size_bytes


def test_https_alone_is_read_where_nothing_leads_away_from_it(make: Make, secured: str) -> None:
    intake = make(LOOPBACK, enabled_schemes=frozenset({"https"}))
    uri = f"{secured}/good/adapter.safetensors"
    assert intake.fetch(AdapterReference(uri=uri), Leash()).size_bytes == len(GOOD)


def test_a_refused_address_is_told_as_one_where_nothing_listens_or_works(
    make: Make, web: str, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        closed = probe.getsockname()[1]
    reaching = make(LOOPBACK)
    told = {
        str(refused(make(), f"{web}/good/adapter.safetensors")),
        str(refused(reaching, f"http://127.0.0.1:{closed}/a")),
        str(refused(reaching, f"{web}/broken")),
        str(refused(reaching, f"{web}/stalls")),
        str(refused(reaching, "http://no-such-host.invalid/a")),
    }
    assert len(told) == 1, told
    assert "AddressRefusedError" in caplog.text, "the operator can tell them apart"
    assert all(record.levelno == logging.WARNING for record in caplog.records)


def test_a_server_that_drips_is_given_up(make: Make, web: str) -> None:
    began = time.monotonic()
    error = refused(make(LOOPBACK, fetch_total_s=0.5), f"{web}/drips")
    assert error.reason is ErrorReason.SOURCE_UNREADABLE
    assert time.monotonic() - began < at_most(2)


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        yield f"http://127.0.0.1:{one.getsockname()[1]}/a"


async def test_servers_that_never_answer_keep_no_thread_from_other_files(
    make: Make, silent: str
) -> None:
    desk = IntakeDesk(make(LOOPBACK, fetch_total_s=5.0))
    slow = [
        asyncio.ensure_future(desk.fetch([AdapterReference(uri=silent)], Leash())) for _ in range(8)
    ]
    await asyncio.sleep(0.1)
    [stored] = await desk.fetch([AdapterReference(inline_bytes=GOOD)], Leash())
    assert stored.size_bytes == len(GOOD)
    assert not any(one.done() for one in slow), "it waited for a thread that one of them gave back"
    desk.close()
    results = await asyncio.gather(*slow, return_exceptions=True)
    assert all(isinstance(one, (NoDecisionError, asyncio.CancelledError)) for one in results)
    assert threading.active_count() < 100
