"""People whom a proxy vouches for: only the proxy is believed, and only once per header."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from loragate_server.access import make_access
from loragate_server.config.console import ConsoleSection
from tests.server.access.conftest import ROLES, Browser, MakeConsole, application

NAMED = {"X-Forwarded-User": "ada@example.com", "X-Forwarded-Groups": "everyone, reviewers"}
SECRET = {"X-Proxy-Secret": "what only the proxy knows"}
ADA = {**NAMED, **SECRET}


MakeAccess = Callable[[socket.socket, str], AbstractAsyncContextManager[None]]


@pytest.fixture
def access(secrets_folder: Path) -> MakeAccess:
    """Serves a console on a socket, with a network that its proxy is in."""

    @asynccontextmanager
    async def serve(listener: socket.socket, network: str) -> AsyncIterator[None]:
        section = ConsoleSection.model_validate(
            {
                "enabled": True,
                "public_url": "http://localhost:9464",
                "auth": "proxy",
                "proxy": {"trusted_networks": [network]},
                "roles": {"viewer": ROLES["viewer"]},
                "session_secret_file": secrets_folder / "session",
            }
        )
        pages = application(make_access(section))
        runner = web.AppRunner(pages, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.SockSite(runner, listener).start()
        yield
        await runner.cleanup()

    return serve


@pytest.fixture
def secret(secrets_folder: Path) -> dict[str, Any]:
    """The settings of the proxy's secret."""
    return {"secret_header": "X-Proxy-Secret", "secret_file": secrets_folder / "proxy"}


@pytest.fixture
async def browser(make_console: MakeConsole, secret: dict[str, Any]) -> Browser:
    return await (await make_console(auth="proxy", proxy=secret)).new_browser()


async def test_the_proxys_headers_are_believed(browser: Browser) -> None:
    answer = await browser.get("/console/page", **ADA)
    assert answer.text.startswith("ada@example.com reviewer /console/page ")
    assert "Set-Cookie" not in answer.headers


async def test_names_of_headers_can_be_chosen(
    make_console: MakeConsole, secret: dict[str, Any]
) -> None:
    settings = {"user_header": "X-Auth-Request-Email", "groups_header": "X-Auth-Request-Groups"}
    browser = await (await make_console(auth="proxy", proxy=settings | secret)).new_browser()
    answer = await browser.get(
        "/console/page",
        **{"X-Auth-Request-Email": "bob", "X-Auth-Request-Groups": "admins"},
        **ADA,
    )
    assert answer.text.startswith("bob admin ")


@pytest.mark.parametrize("groups", ["", "nobody", "Reviewers", "reviewers everyone"])
async def test_who_has_no_role_is_refused(browser: Browser, groups: str) -> None:
    answer = await browser.get("/console/page", **{**ADA, "X-Forwarded-Groups": groups})
    assert (answer.status, answer.code) == (403, "no_role")


async def test_without_a_name_there_is_no_page(browser: Browser) -> None:
    unnamed = ({}, {"X-Forwarded-Groups": "admins"}, {**ADA, "X-Forwarded-User": " "})
    for headers in ({**SECRET, **one} for one in unnamed):
        answer = await browser.get("/console/page", **headers)
        assert (answer.status, answer.code) == (401, "sign_in")


@pytest.mark.parametrize(
    ("header", "value", "code"),
    [
        ("X-Forwarded-User", "a\u202eb", "name_unusable"),
        ("X-Forwarded-User", "a\tb", "name_unusable"),
        ("X-Forwarded-User", "a" * 201, "name_unusable"),
        ("X-Forwarded-Groups", "a" * 8001, "proxy_headers"),
    ],
)
async def test_unusable_values_are_refused(
    browser: Browser, header: str, value: str, code: str
) -> None:
    answer = await browser.get("/console/page", **{**ADA, header: value})
    assert answer.code == code
    assert answer.status in (400, 403)


@pytest.mark.parametrize("header", ["X-Forwarded-User", "X-Forwarded-Groups", "X-Proxy-Secret"])
async def test_headers_that_come_twice_are_refused(browser: Browser, header: str) -> None:
    """As when a proxy adds its own to one that a stranger sent."""
    headers = [*ADA.items(), (header, "admins")]
    async with browser.http.get(f"{browser.url}/console/page", headers=headers) as response:
        assert response.status == 400
        assert 'data-code="proxy_headers"' in await response.text()


async def test_nobody_else_is_believed(
    make_console: MakeConsole, secret: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"trusted_networks": ["10.0.0.0/8", "192.0.2.7/32"], **secret}
    browser = await (await make_console(auth="proxy", proxy=settings)).new_browser()
    pretended = {
        "X-Forwarded-For": "10.0.0.1",
        "X-Real-IP": "10.0.0.1",
        "Forwarded": "for=10.0.0.1",
    }
    for headers in ({}, ADA, {**ADA, **pretended}):
        answer = await browser.get("/console/page", **headers)
        assert (answer.status, answer.code) == (403, "proxy_untrusted")
    assert caplog.messages == ["access refused: proxy_untrusted"] * 3


async def test_the_proxys_secret_is_demanded(browser: Browser) -> None:
    assert (await browser.get("/console/page", **ADA)).status == 200
    for secret in ("", "what only the proxy know", "what only the proxy knows!", "é"):
        answer = await browser.get("/console/page", **{**ADA, "X-Proxy-Secret": secret})
        assert (answer.status, answer.code) == (403, "proxy_untrusted")
        assert "what only" not in answer.text
    assert (await browser.get("/console/page", **NAMED)).code == "proxy_untrusted"


async def test_forms_are_bound_to_the_person(browser: Browser) -> None:
    form = {"csrf": (await browser.get("/console/page", **ADA)).text.rpartition("csrf=")[2]}
    own = {"Origin": browser.url}
    assert (await browser.post("/console/page", form, {**ADA, **own})).status == 200
    bob = {**ADA, "X-Forwarded-User": "bob"}
    assert (await browser.post("/console/page", form, {**bob, **own})).code == "form_token"
    evil = {**ADA, "Origin": "https://evil.example.com"}
    assert (await browser.post("/console/page", form, evil)).code == "cross_site"
    assert (await browser.post("/console/page", form, {**SECRET, **own})).code == "sign_in"


async def test_only_the_proxy_can_sign_people_out(browser: Browser) -> None:
    assert (await browser.get("/console/leave", **ADA)).text == "no form"
    assert (await browser.get("/console/login", follow=False, **SECRET)).location == "/console/"
    assert (await browser.get("/console/callback?code=1&state=2", **ADA)).status == 404


async def test_a_viewer_may_not_decide(browser: Browser, caplog: pytest.LogCaptureFixture) -> None:
    viewer: dict[str, Any] = {**ADA, "X-Forwarded-Groups": "everyone"}
    answer = await browser.get("/console/decide", **viewer)
    assert answer.status == 403
    assert "needs the role reviewer" in answer.text
    assert caplog.messages == ["role refused"]
    assert (await browser.get("/console/decide", **ADA)).text == "ada@example.com"


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize(
    ("network", "host", "connect_to", "status"),
    [
        ("127.0.0.0/8", "::", "127.0.0.1", 200),  # which the socket calls ::ffff:127.0.0.1
        ("::1/128", "::1", "::1", 200),
        ("127.0.0.0/8", "::1", "::1", 403),
        ("::ffff:0:0/96", "::", "127.0.0.1", 403),  # mapped networks are to be named as IPv4
    ],
)
async def test_peers_are_known_by_either_kind_of_address(
    access: MakeAccess, network: str, host: str, connect_to: str, status: int
) -> None:
    family = {"family": socket.AF_INET6, "dualstack_ipv6": host == "::"}
    listener = socket.create_server((host, 0), **family)
    named = f"[{connect_to}]" if ":" in connect_to else connect_to
    url = f"http://{named}:{listener.getsockname()[1]}/console/page"
    async with (
        access(listener, network),
        aiohttp.ClientSession(headers={**ADA, "Host": "localhost:9464"}) as http,
        http.get(url) as response,
    ):
        assert response.status == status


async def test_unix_sockets_have_no_address_to_trust(access: MakeAccess, tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "http.sock"))
    connector = aiohttp.UnixConnector(str(tmp_path / "http.sock"))
    async with (
        access(listener, "127.0.0.0/8"),
        aiohttp.ClientSession(connector=connector, headers=ADA) as http,
        http.get("http://localhost:9464/console/page") as response,
    ):
        assert response.status == 403
        assert 'data-code="proxy_untrusted"' in await response.text()
