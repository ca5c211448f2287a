"""The demo's one link: one session, from this machine, and nothing without it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from typer.testing import CliRunner
from yarl import URL

from loragate_server.access import demo, make_access
from loragate_server.access.access import Access
from loragate_server.access.demo import LINK_S
from loragate_server.access.identity import USER
from loragate_server.cli.command import application
from loragate_server.config.console import ConsoleSection, RolesSection
from loragate_server.config.schema import Config
from loragate_server.config.sources import ConfigError, load_config

ADDRESS = "http://127.0.0.1:9464"
HEADERS = {"Host": "127.0.0.1:9464"}


class Clock:
    now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def access(clock: Clock) -> Access:
    roles = RolesSection(admin=frozenset({"demo"}))
    section = ConsoleSection(enabled=True, auth="demo", public_url=ADDRESS, roles=roles)
    return make_access(section, clock)


@pytest.fixture
async def client(access: Access) -> AsyncIterator[TestClient[web.Request, web.Application]]:
    async def home(request: web.Request) -> web.Response:
        return web.Response(text=f"{request[USER].name} {request[USER].role}")

    console = web.Application()
    access.install(console)
    console.router.add_get("/", home)
    root = web.Application()
    root.add_subapp("/console", console)
    async with TestClient(TestServer(root)) as running:
        yield running


def link(access: Access) -> str:
    return URL(access.first_link).path_qs


async def test_the_link_lets_its_first_user_in_and_nobody_after(
    access: Access, client: TestClient[web.Request, web.Application]
) -> None:
    first = await client.get(link(access), headers=HEADERS, allow_redirects=False)
    assert (first.status, first.headers["Location"]) == (303, "/console/")
    cookie = first.headers["Set-Cookie"].partition(";")[0]
    assert "HttpOnly" in first.headers["Set-Cookie"]
    page = await client.get("/console/", headers={**HEADERS, "Cookie": cookie})
    assert await page.text() == "demo admin"
    client.session.cookie_jar.clear()
    again = await client.get(link(access), headers=HEADERS, allow_redirects=False)
    assert again.status == 401
    assert "Set-Cookie" not in again.headers
    assert "demo_link" in await again.text()


@pytest.mark.parametrize("code", ["", "?code=", "?code=x", "?code=%00", "?code=%F0%9F%92%A3"])
async def test_a_wrong_code_opens_nothing_and_does_not_use_the_link_up(
    code: str, access: Access, client: TestClient[web.Request, web.Application]
) -> None:
    refused = await client.get(f"/console/login{code}", headers=HEADERS, allow_redirects=False)
    assert refused.status == 401
    head = await client.head(link(access), headers=HEADERS, allow_redirects=False)
    assert head.status == 401, "what looks links up beforehand does not use them up"
    right = await client.get(link(access), headers=HEADERS, allow_redirects=False)
    assert right.status == 303


async def test_an_old_link_opens_nothing(
    clock: Clock, access: Access, client: TestClient[web.Request, web.Application]
) -> None:
    clock.now_s += LINK_S + 1
    assert (await client.get(link(access), headers=HEADERS)).status == 401


async def test_another_host_and_another_machine_are_refused(
    access: Access,
    client: TestClient[web.Request, web.Application],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    foreign = await client.get(link(access), headers={"Host": "evil.example:9464"})
    assert foreign.status == 421
    monkeypatch.setattr(demo, "peer_address", lambda _: None)
    assert (await client.get(link(access), headers=HEADERS)).status == 401


async def test_without_a_session_every_page_is_closed(
    client: TestClient[web.Request, web.Application],
) -> None:
    page = await client.get("/console/", headers=HEADERS)
    assert page.status == 401
    assert "ten minutes" in await page.text()


async def test_signing_out_ends_the_session_for_good(
    access: Access, client: TestClient[web.Request, web.Application]
) -> None:
    first = await client.get(link(access), headers=HEADERS, allow_redirects=False)
    cookie = first.headers["Set-Cookie"].partition(";")[0]
    unproven = await client.post(
        "/console/logout", headers={**HEADERS, "Cookie": cookie}, allow_redirects=False
    )
    assert unproven.status == 403


@pytest.mark.parametrize("http", ["0.0.0.0:9464", "10.0.0.1:9464", "[::]:9464"])
def test_no_setting_opens_it_to_other_machines(http: str, write: Callable[[str], Path]) -> None:
    with pytest.raises(ConfigError, match="loopback"):
        load_config(
            write(f"""
listen: {{http: "{http}"}}
insecure_off_loopback: true
console: {{enabled: true, auth: demo, public_url: "{ADDRESS}", roles: {{admin: [demo]}}}}
""")
        )


def test_it_cannot_stand_behind_a_public_address(write: Callable[[str], Path]) -> None:
    with pytest.raises(ConfigError, match="leads off this machine"):
        load_config(
            write("""
console: {enabled: true, auth: demo, public_url: "https://x.example", roles: {admin: [demo]}}
""")
        )


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def one(text: str) -> Path:
        (file := tmp_path / "loragate.yaml").write_text(text)
        return file

    return one


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (["--http", "0.0.0.0:9464"], "listen.http is 0.0.0.0:9464"),
        (["--http", "127.0.0.1:0"], "a number"),
    ],
)
def test_the_command_says_what_is_wrong_before_anything_starts(flags: list[str], why: str) -> None:
    done = CliRunner().invoke(application, ["serve", "--console-demo", *flags])
    assert done.exit_code == 2
    assert why in done.stderr


def test_the_command_takes_no_console_from_those_who_sign_in_to_it(
    write: Callable[[str], Path], tmp_path: Path
) -> None:
    file = write(f"""
console:
  enabled: true
  public_url: https://x.example
  auth: proxy
  roles: {{viewer: [v]}}
  session_secret_file: {tmp_path}/s
""")
    done = CliRunner().invoke(application, ["serve", "--console-demo", "--config", str(file)])
    assert done.exit_code == 2
    assert "console.auth proxy" in done.stderr


def test_the_default_has_no_console() -> None:
    assert not Config().console.enabled
