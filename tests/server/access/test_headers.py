"""What every answer of the console carries, and what every request to it must carry."""

from __future__ import annotations

import asyncio
from http.cookies import SimpleCookie
from pathlib import Path

import aiohttp
import pytest

from tests.server.access.conftest import Browser, Console, MakeConsole, oidc
from tests.server.access.openid import OpenIdProvider

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)
PUBLIC_URL = "https://loragate.example.com"


@pytest.fixture
async def public(
    make_console: MakeConsole, provider: OpenIdProvider, secrets_folder: Path
) -> Console:
    """One that browsers reach by HTTPS, through a proxy that passes the host on."""
    provider.redirect_uris.add(f"{PUBLIC_URL}/console/callback")
    return await make_console(public_url=PUBLIC_URL, oidc=oidc(provider, secrets_folder))


async def test_every_answer_carries_them(signed_in: Browser) -> None:
    expected = {
        "/console/page": 200,
        "/console/nowhere": 404,
        "/console/logout": 405,
        "/console/fail": 500,
        "/console/callback": 400,
        "/console/login": 303,
        "/console/signed-out": 200,
        "/console/access.css": 200,
        "/console/static/a.css": 200,
    }
    answers = [
        (await signed_in.get(path, follow=False), status) for path, status in expected.items()
    ]
    answers.append((await signed_in.post("/console/page", {}), 403))
    answers.append((await signed_in.get("/console/page", follow=False, Host="evil.example"), 421))
    for answer, status in answers:
        assert answer.status == status, answer.url
        assert answer.headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "same-origin"
        assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "camera=()" in answer.headers["Permissions-Policy"]
        assert answer.headers["Cache-Control"] == "no-store"
        assert "Strict-Transport-Security" not in answer.headers


async def test_the_rest_of_the_port_is_left_alone(browser: Browser) -> None:
    answer = await browser.get("/healthz", Host="10.0.0.7:9464")
    assert (answer.status, answer.text) == (200, "alive")
    assert "Content-Security-Policy" not in answer.headers


@pytest.mark.parametrize(
    "host",
    [
        "evil.example.com",
        "LOCAL.evil.example.com",
        "127.0.0.1",
        "localhost:PORT",
        "",
        "a@LOCAL",
        "[",
        "LOCAL:1",
    ],
)
async def test_other_hosts_are_refused(browser: Browser, host: str) -> None:
    local = browser.url.removeprefix("http://")
    named = host.replace("LOCAL", local).replace("PORT", local.partition(":")[2])
    for path in ("/console/page", "/console/login", "/console/access.css"):
        answer = await browser.get(path, follow=False, Host=named)
        assert (answer.status, answer.code) == (421, "wrong_host")
        assert browser.url in answer.text


@pytest.mark.parametrize("hosts", [0, 2])
async def test_the_host_comes_once(browser: Browser, hosts: int) -> None:
    """On the wire, because clients do not send such requests."""
    local = browser.url.removeprefix("http://")
    name, _, port = local.partition(":")
    reader, writer = await asyncio.open_connection(name, int(port))
    lines = ["GET /console/signed-out HTTP/1.1", *[f"Host: {local}"] * hosts, "Connection: close"]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    answer = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    assert answer.split()[1] in ("400", "421")
    assert "You have left" not in answer


async def test_a_host_may_be_written_in_capitals_and_with_its_port(public: Console) -> None:
    browser = await public.new_browser()
    for host in ("loragate.example.com", "LoraGate.example.COM", "loragate.example.com:443"):
        assert (await browser.get("/console/signed-out", Host=host)).status == 200
    assert (await browser.get("/console/signed-out", Host="loragate.example.com:80")).status == 421


async def test_over_https_cookies_stay_with_the_host(public: Console) -> None:
    """Cookies by hand: the browser of the tests rightly keeps them from plain HTTP."""
    host = {"Host": "loragate.example.com"}
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http:

        async def get(url: str, cookie: str = "") -> aiohttp.ClientResponse:
            own = {**host, "Cookie": cookie} if url.startswith(PUBLIC_URL) else {}
            address = url.replace(PUBLIC_URL, public.url)
            async with http.get(address, headers=own, allow_redirects=False) as response:
                return response

        to_provider = await get(f"{PUBLIC_URL}/console/login")
        assert to_provider.headers["Strict-Transport-Security"] == "max-age=31536000"
        attempt = _cookie(to_provider, "__Host-loragate_login_")
        back = await get(to_provider.headers["Location"])
        entered = await get(back.headers["Location"], attempt)
        assert (entered.status, entered.headers["Location"]) == (303, "/console/")
        session = _cookie(entered, "__Host-loragate_session")
        assert (await get(f"{PUBLIC_URL}/console/page", session)).status == 200
        stripped = session.removeprefix("__Host-")
        assert (await get(f"{PUBLIC_URL}/console/page", stripped)).status == 303


def _cookie(response: aiohttp.ClientResponse, name: str) -> str:
    """The cookie of that name as a browser sends it back, if it is as it should be."""
    for line in response.headers.getall("Set-Cookie"):
        for key, morsel in SimpleCookie(line).items():
            if key.startswith(name) and morsel.value:
                assert morsel["secure"] is True
                assert morsel["httponly"] is True
                assert (morsel["samesite"], morsel["path"], morsel["domain"]) == ("Lax", "/", "")
                assert int(morsel["max-age"]) in (600, 3600)
                return f"{key}={morsel.value}"
    raise AssertionError(f"no cookie {name}")


async def test_people_are_spoken_to_in_their_language(browser: Browser) -> None:
    answer = await browser.get("/console/signed-out", **{"Accept-Language": "ja,en;q=0.5"})
    assert 'lang="ja"' in answer.text
    assert "サインアウトしました" in answer.text
    assert 'lang="en"' in (await browser.get("/console/signed-out")).text
