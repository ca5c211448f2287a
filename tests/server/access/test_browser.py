"""The same in a real browser, whose own rules on cookies, forms and headers have to be met."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

playwright = pytest.importorskip("playwright.async_api")

from playwright.async_api import Page, async_playwright  # noqa: E402

from tests.server.access.conftest import Console  # noqa: E402
from tests.server.access.openid import OpenIdProvider  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FOREIGN = """<!DOCTYPE html><title>Elsewhere</title>
<form method="post" action="{address}/console/page"><input type="hidden" name="csrf" value="{csrf}">
<button>Win a prize</button></form>"""

pytestmark = [
    pytest.mark.needs("chromium"),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium"),
]


@pytest.fixture
async def provider(provider: OpenIdProvider) -> OpenIdProvider:
    """On another site than the console, whose address is 127.0.0.1."""
    provider.address = provider.address.replace("127.0.0.1", "localhost")
    provider.description["end_session_endpoint"] = f"{provider.address}/end"
    return provider


@pytest.fixture
async def complaints() -> list[str]:
    return []


@pytest.fixture
async def page(complaints: list[str]) -> AsyncIterator[Page]:
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = await (await browser.new_context()).new_page()
        page.on("console", lambda told: complaints.append(f"{told.text} {told.location['url']}"))
        yield page
        await browser.close()


async def test_people_sign_in_send_a_form_and_sign_out(
    console: Console, page: Page, provider: OpenIdProvider, complaints: list[str]
) -> None:
    await page.goto(f"{console.url}/console/forms")
    assert page.url == f"{console.url}/console/forms"
    assert provider.times_asked("/authorize") == 1
    await page.get_by_role("button", name="Act").click()
    assert await page.inner_text("body") == "ada@example.com did this"
    await page.goto(f"{console.url}/console/forms")
    await page.get_by_role("button", name="Leave").click()
    await page.wait_for_url(f"{console.url}/console/signed-out")
    assert provider.times_asked("/end") == 1
    assert await page.inner_text("h1") == "Signed out"
    assert await page.context.cookies() == []
    await page.get_by_role("link", name="Sign in").click()
    assert (await page.inner_text("body")).startswith("ada@example.com reviewer /console/ ")
    assert [one for one in complaints if not one.endswith("/favicon.ico")] == []


async def test_a_form_of_another_site_is_refused(
    console: Console, page: Page, provider: OpenIdProvider
) -> None:
    await page.goto(f"{console.url}/console/page")
    stolen = (await page.inner_text("body")).rpartition("csrf=")[2]
    html = FOREIGN.format(address=console.url, csrf=stolen)

    async def elsewhere(_: web.Request) -> web.Response:
        return web.Response(text=html, content_type="text/html")

    other = web.Application()
    other.router.add_get("/", elsewhere)
    runner = web.AppRunner(other, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    # Once from another site, and once from a neighbour on the same site, where cookies are sent.
    for host in ("localhost", "127.0.0.1"):
        await page.goto(f"http://{host}:{runner.addresses[0][1]}/")
        async with page.expect_navigation() as sent:
            await page.get_by_role("button").click()
        answer = await sent.value
        assert answer is not None
        assert answer.status == 403
        assert await page.get_attribute("main", "data-code") == "cross_site"
    await runner.cleanup()
