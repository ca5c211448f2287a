"""A console of small pages behind the real access, and a browser that keeps cookies."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from loragate_server.access import Access, csrf_token, make_access, require_permission, require_role
from loragate_server.access.forms import FORM_TOKENS
from loragate_server.access.identity import USER, Permission, Role
from loragate_server.access.paths import LOGOUT
from loragate_server.config.console import ConsoleSection
from tests.server.access.openid import CLIENT_ID, CLIENT_SECRET, OpenIdProvider

ROLES = {"viewer": ["everyone"], "reviewer": ["reviewers"], "admin": ["admins"]}
SESSION_S = 3600.0


FORMS = """<!DOCTYPE html><title>Forms</title>
<form method="post" action="/console/page"><input type="hidden" name="csrf" value="{act}">
<input name="what" value="this"><button>Act</button></form>
<form method="post" action="/console/logout"><input type="hidden" name="csrf" value="{leave}">
<button>Leave</button></form>"""


class Clock:
    """A clock that tests set forward."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_s


@dataclass
class Answer:
    """One answer, read to its end."""

    status: int
    headers: Any
    text: str
    url: str

    @property
    def code(self) -> str:
        """The reason that the page names."""
        found = re.search(r'data-code="([a-z_]+)"', self.text)
        return found[1] if found else ""

    @property
    def location(self) -> str:
        return str(self.headers["Location"])


@dataclass
class Browser:
    """Sends what browsers send with pages and forms."""

    http: aiohttp.ClientSession
    url: str

    async def get(self, path: str, *, follow: bool = True, **headers: str) -> Answer:
        address = path if path.startswith("http") else self.url + path
        return await self._ask("GET", address, follow=follow, headers=headers)

    async def post(
        self, path: str, form: dict[str, str] | bytes, headers: dict[str, str] | None = None
    ) -> Answer:
        own = {"Origin": self.url, "Sec-Fetch-Site": "same-origin"} if headers is None else headers
        return await self._ask("POST", self.url + path, follow=False, headers=own, data=form)

    async def fields(self, path: str = "/console/page") -> dict[str, str]:
        """The hidden field of the form on a page."""
        return {"csrf": (await self.get(path)).text.rpartition("csrf=")[2]}

    def cookie(self, name: str = "loragate_session") -> str:
        return {one.key: one.value for one in self.http.cookie_jar}.get(name, "")

    def set_cookie(self, value: str, name: str = "loragate_session") -> None:
        self.http.cookie_jar.update_cookies({name: value}, URL(self.url))

    async def _ask(self, method: str, address: str, *, follow: bool, **rest: Any) -> Answer:
        async with self.http.request(method, address, allow_redirects=follow, **rest) as response:
            text = await response.text()
            return Answer(response.status, response.headers, text, str(response.url))


@dataclass
class Console:
    """A running console."""

    url: str
    access: Access
    new_browser: Callable[[], Awaitable[Browser]]


MakeConsole = Callable[..., Awaitable[Console]]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def secrets_folder(tmp_path: Path) -> Path:
    (tmp_path / "session").write_bytes(b"0123456789abcdefghijklmnopqrstuvwxyz\n")
    (tmp_path / "client").write_text(CLIENT_SECRET + "\n")
    (tmp_path / "proxy").write_text("what only the proxy knows\n")
    return tmp_path


@pytest.fixture
async def provider(clock: Clock) -> AsyncIterator[OpenIdProvider]:
    running = OpenIdProvider(clock)
    await running.start()
    yield running
    await running.close()


@pytest.fixture
async def make_console(
    secrets_folder: Path, clock: Clock, request: pytest.FixtureRequest
) -> AsyncIterator[MakeConsole]:
    """Starts a console with the settings that are given beside the usual ones."""
    async with AsyncExitStack() as stack:

        async def make(**settings: Any) -> Console:
            listener = socket.create_server(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            section = ConsoleSection.model_validate(
                {
                    "enabled": True,
                    "public_url": url,
                    "roles": ROLES,
                    "session_secret_file": secrets_folder / "session",
                    "session_s": SESSION_S,
                    **settings,
                }
            )
            access = make_access(section, clock)
            await access.start()
            stack.push_async_callback(access.close)
            runner = web.AppRunner(application(access), access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.SockSite(runner, listener).start()

            async def new_browser() -> Browser:
                jar = aiohttp.CookieJar(unsafe=True)  # keeps cookies of plain addresses
                http = await stack.enter_async_context(aiohttp.ClientSession(cookie_jar=jar))
                return Browser(http, url)

            return Console(url, access, new_browser)

        yield make


@pytest.fixture
async def console(
    make_console: MakeConsole, provider: OpenIdProvider, secrets_folder: Path
) -> Console:
    """One that signs people in with the provider."""
    running = await make_console(oidc=oidc(provider, secrets_folder))
    provider.redirect_uris.add(f"{running.url}/console/callback")
    return running


@pytest.fixture
async def browser(console: Console) -> Browser:
    return await console.new_browser()


@pytest.fixture
async def signed_in(browser: Browser) -> Browser:
    """A browser in which a reviewer has signed in."""
    assert (await browser.get("/console/page")).status == 200
    return browser


def oidc(provider: OpenIdProvider, folder: Path, **settings: Any) -> dict[str, Any]:
    return {
        "issuer": provider.address,
        "client_id": CLIENT_ID,
        "client_secret_file": folder / "client",
        **settings,
    }


def application(access: Access) -> web.Application:
    """The server's HTTP port, with a console of small pages."""
    pages = web.Application()
    access.install(pages)

    async def page(request: web.Request) -> web.Response:
        user = request[USER]
        return web.Response(
            text=f"{user.name} {user.role} {request.path} csrf={csrf_token(request)}"
        )

    async def act(request: web.Request) -> web.Response:
        form = await request.post()
        return web.Response(text=f"{request[USER].name} did {form.get('what')}")

    async def decide(request: web.Request) -> web.Response:
        return web.Response(text=require_role(request, Role.REVIEWER).name)

    async def editing(request: web.Request) -> web.Response:
        return web.Response(text=require_permission(request, Permission.EDIT_CONCEPTS).name)

    async def leave(request: web.Request) -> web.Response:
        signs_out = request[FORM_TOKENS].signs_out
        form = f"csrf={csrf_token(request, LOGOUT)}" if signs_out else "no form"
        return web.Response(text=form)

    async def forms(request: web.Request) -> web.Response:
        act, leave = csrf_token(request, "/console/page"), csrf_token(request, LOGOUT)
        html = FORMS.format(act=act, leave=leave)
        return web.Response(text=html, content_type="text/html")

    async def fail(_: web.Request) -> web.Response:
        raise RuntimeError("a page that fails")

    async def style(_: web.Request) -> web.Response:
        return web.Response(text="p {}")

    pages.router.add_get("/", page)
    pages.router.add_get("/page", page)
    pages.router.add_post("/page", act)
    pages.router.add_get("/cases/{case_id}", page)
    pages.router.add_get("/decide", decide)
    pages.router.add_get("/editing", editing)
    pages.router.add_get("/leave", leave)
    pages.router.add_get("/forms", forms)
    pages.router.add_get("/fail", fail)
    pages.router.add_get("/static/{name}", style)

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="alive")

    outer = web.Application()
    outer.router.add_get("/healthz", healthz)
    outer.add_subapp("/console", pages)
    return outer
